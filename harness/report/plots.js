// -- figures

const touch = matchMedia("(pointer: coarse)").matches;  // a finger scrolls the page, it does not zoom
const settings = {
  displaylogo: false, displayModeBar: touch ? false : "hover",
  modeBarButtons: [["select2d", "lasso2d", "zoom2d", "resetScale2d", "toImage"]],  // by name: the default bar can send the data to a server
  toImageButtonOptions: { format: "svg" },
};
const ACCENT = "#b4441f";
const safe = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");  // plotly reads its own small HTML

// What hovering over a trial says: its numbers, and what differs from the baseline or from what most trials have.
function hover(row) {
  const [main, ...costs] = page.units.filter(({ shown }) => shown).map((unit) => {
    const value = measured[unit.metric](row);
    return value === null || value === undefined ? null : `${written(value, unit)} ${unit.title.toLowerCase().replace("macs", "MACs")}`;
  });
  const study = page.studies[field.study(row)];
  const differing = chosen(row, true).map((pair) => safe(pair.join(" ").trim()));
  const name = `<b>Trial ${numbers[row]}</b>${single ? "" : ` of ${safe(study.name)}`}`;
  return [`${name}${main ? `, ${main}` : ""}`, costs.filter(Boolean).join(" · "), ...(differing.length ? differing : [`as ${safe(study.against)}`])]
    .filter(Boolean).join("<br>");
}

// The trials of a trace, point by point, each as a list: a mean has several.
function trialsOf(trace) {
  const study = trace.meta?.study ?? 0;
  if (trace.meta?.trial !== undefined) return trace.x.map(() => [rowOf(study, trace.meta.trial)]);
  return (trace.customdata ?? []).map((numbers) => [numbers].flat().map((number) => rowOf(study, number)).filter((row) => row !== undefined));
}

// Fills in what the page keeps once for all figures.
function filled(trace) {
  const trials = trace.meta?.x || trace.meta?.trial !== undefined || trace.customdata ? trialsOf(trace) : [];
  const found = { ...trace, trials };
  if (trace.meta?.x) for (const axis of ["x", "y"]) {
    const { metric, scale } = units[trace.meta[axis]];
    found[axis] = trials.map(([row]) => measured[metric](row) * scale);
  }
  if (trace.meta?.trial !== undefined && trials.length) found.text = hover(trials[0][0]);
  else if (trials.length && !trace.text) Object.defineProperty(found, "text", { get: () => found.said ??= trials.map(([row]) => row === undefined ? "" : hover(row)), enumerable: true });
  return found;
}

// A phone has no room for a legend's title, which the note below tells too, nor for the names of arms, which a tap tells.
function narrow(layout) {
  layout.legend.title = {};
  layout.annotations = layout.annotations?.filter(({ name }) => name !== "arm");
  for (const axis of Object.keys(layout).filter((key) => key.startsWith("xaxis"))) {
    const title = layout[axis].title;
    if (title?.text) title.text = title.text.replaceAll("<br>", " ").replace(/(.{24}\S*) /g, "$1<br>");
  }
}

class Drawn {
  constructor(plot, views) {
    this.plot = plot;
    this.views = views;
    this.name = Object.keys(views)[0];
    this.begun = false;
    this.switches();
  }

  get view() { return this.views[this.name]; }

  // One button a view, and one that changes between a linear and a logarithmic axis.
  switches() {
    const home = document.querySelector(`.switches[data-for="${this.plot.id.slice(5)}"]`), names = Object.keys(this.views);
    const group = (words, ...buttons) => make("div", { role: "group", "aria-label": words }, ...buttons);
    const shown = names.length > 1 ? [group("Shown", ...names.map((name) => button(name, () => { this.name = name; this.switches(); this.draw(); }, { "aria-pressed": name === this.name })))] : [];
    const { scales = {}, scale } = this.view.layout.meta ?? {};
    if (scales.log) shown.push(group("Axis", ...["linear", "log"].map((kind) =>
      button(kind, () => { this.scale(kind); this.switches(); this.draw(); }, { "aria-pressed": kind === scale }))));
    home.replaceChildren(...shown);
  }

  scale(kind) {
    const { layout } = this.view;
    if (layout.meta.scale === kind) return;
    layout.meta.scale = kind;
    Object.assign(layout.xaxis, { range: null, autorange: true }, layout.meta.scales[kind]);
    for (const note of layout.annotations ?? []) if ((note.xref ?? "x") === "x") note.x = kind === "log" ? Math.log10(note.x) : 10 ** note.x;
  }

  // Traces as they are now: selected trials stand out, the open one is ringed.
  traces() {
    this.view.filled ??= this.view.data.map(filled);
    const { selected, open } = picked, panes = new Map();
    const found = this.view.filled.map((trace) => {
      const { xaxis = "x", yaxis = "y" } = trace, pane = `${xaxis} ${yaxis}`;
      if (!panes.has(pane)) panes.set(pane, { xaxis, yaxis, points: [], lines: [] });
      const line = trace.meta?.trial !== undefined;
      trace.trials.forEach((trials, place) => {
        if (open === null || !trials.includes(open)) return;
        panes.get(pane)[line ? "lines" : "points"].push([trace.x[place], trace.y[place]]);
      });
      if (line && trace.trials.length) {
        if (panes.get(pane).lines.length && panes.get(pane).lines.at(-1)[0] !== null) panes.get(pane).lines.push([null, null]);
        return selected ? { ...trace, opacity: selected.has(trace.trials[0][0]) ? 1 : 0.08 } : trace;
      }
      if (!trace.trials.length || !selected) return { ...trace, selectedpoints: null };
      const chosen = trace.trials.flatMap((trials, place) => trials.some((row) => selected.has(row)) ? [place] : []);
      return { ...trace, selectedpoints: chosen, selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 0.08 } } };
    });
    const marks = { hoverinfo: "skip", showlegend: false };
    for (const { xaxis, yaxis, points, lines } of panes.values()) {
      const [x, y] = [0, 1].map((side) => points.map((point) => point[side]));
      const [along, up] = [0, 1].map((side) => lines.map((point) => point[side]));
      found.push({ ...marks, type: "scatter", xaxis, yaxis, x: along, y: up, mode: "lines", line: { color: ACCENT, width: 3.5 }, name: "marked" });
      found.push({ ...marks, type: "scatter", xaxis, yaxis, x, y, mode: "markers", name: "marked",
        marker: { symbol: "circle-open", size: 20, color: ACCENT, line: { width: 2.5 } } });
    }
    return found;
  }

  draw() {
    const { layout } = this.view;
    layout.uirevision = `${this.name} ${layout.meta?.scale}`;
    layout.dragmode ??= touch ? false : this.view.data.some((trace) => trace.customdata) ? "select" : "zoom";
    if (innerWidth < 640) narrow(layout);
    if (!picked.selected) layout.selections = [];
    Plotly.react(this.plot, this.traces(), layout, settings);
    if (!this.begun) this.begin();
  }

  begin() {
    this.begun = true;
    if (!performance.getEntriesByName("ready").length) performance.mark("ready");
    const at = ({ curveNumber, pointIndex }) => this.view.filled[curveNumber]?.trials[pointIndex] ?? [];
    this.plot.on("plotly_click", ({ points }) => {
      const [row] = points.flatMap(at);
      if (row !== undefined) location.hash = address(row);
    });
    this.plot.on("plotly_selected", (event) => {
      if (!event) return;
      const found = new Set(event.points.flatMap(at));
      if (found.size) select(found);
      else select(null);
    });
    this.plot.on("plotly_deselect", () => select(null));
  }
}

const drawn = new Map();

function select(found) {
  view.shown = STEP;
  pick({ selected: found });
  const bar = document.getElementById("selection");
  bar.hidden = !found;
  if (found) bar.replaceChildren(`${found.size.toLocaleString("en")} ${found.size === 1 ? "trial" : "trials"} selected`,
    button("Show them in the table", () => document.getElementById("trials").scrollIntoView({ behavior: "smooth" })),
    button("Clear", () => select(null)));
}

// Figures in sight first, the others when there is time, so that a page of ten thousand trials answers at once.
function startPlots() {
  for (const [id, views] of Object.entries(read("figure-data"))) drawn.set(`plot-${id}`, new Drawn(document.getElementById(`plot-${id}`), views));
  const sight = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    sight.unobserve(entry.target);
    if (!drawn.get(entry.target.id).begun) drawn.get(entry.target.id).draw();
  }), { rootMargin: "300px" });
  for (const { plot } of drawn.values()) sight.observe(plot);
  const later = window.requestIdleCallback ?? ((work) => setTimeout(work, 50));
  const next = () => {
    const waiting = [...drawn.values()].find(({ begun }) => !begun);
    if (!waiting) { document.documentElement.dataset.drawn = ""; return; }
    waiting.draw();
    later(next);
  };
  later(next);
  picked.listeners.push(() => { for (const one of drawn.values()) if (one.begun) one.draw(); });
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === width) return;
    width = contentRect.width;
    for (const { begun, plot } of drawn.values()) if (begun) Plotly.Plots.resize(plot);
  }).observe(document.querySelector("main"));
}

addEventListener("beforeprint", () => drawn.forEach((one) => {
  if (!one.begun) one.draw();
  Plotly.relayout(one.plot, { autosize: false, width: 660, height: Math.min(one.plot.clientHeight, 420) });
}));
addEventListener("afterprint", () => drawn.forEach(({ plot }) => Plotly.relayout(plot, { autosize: true, width: null, height: null })));
