// -- one trial, opened by its address

const panel = document.getElementById("panel");
const KERNELS = {  // of the offsets of rows and columns, and a radius, as harness/networks/attention/kernels.py has them
  gaussian: (rows, columns, radius) => Math.exp(-(rows ** 2 + columns ** 2) / (2 * radius ** 2)),
  laplacian: (rows, columns, radius) => Math.exp(-(rows + columns) / radius),
  laplacian_l2: (rows, columns, radius) => Math.exp(-Math.hypot(rows, columns) / radius),
  cauchy: (rows, columns, radius) => 1 / (1 + (rows ** 2 + columns ** 2) / radius ** 2),
  linear: (rows, columns, radius) => Math.max(0, 1 - Math.hypot(rows, columns) / radius),
};
const SHOWN_MAPS = 8;

// The maps that a trial has learned: of each place and head the kernel around the middle of the grid.
function maps(row) {
  const whole = config(row), found = [];
  for (const [place, values] of Object.entries(page.trials.radii)) {
    const stage = /^(\d+)\./.exec(place)?.[1], grid = page.studies[field.study(row)].grids[stage];
    const slot = whole.network?.stages?.[Number(stage) - 1], kernel = KERNELS[slot?.kernel];
    if (!grid || !kernel) continue;
    const [height, width] = slot.largest && Math.max(...grid) > slot.largest ? grid.map((side) => Math.ceil(side / 2)) : grid;
    values[row].forEach((radius, head) => {
      const reach = slot.unit === "share" ? radius * Math.max(height, width) : radius;
      const name = `stage ${stage}, block ${place.split(".")[1]}${values[row].length > 1 ? `, head ${head + 1}` : ""}`;
      found.push({ name, radius, height, width, weight: (y, x) => kernel(Math.abs(y), Math.abs(x), reach) });
    });
  }
  return found;
}

function drawnMap({ name, radius, height, width, weight }) {
  const ns = "http://www.w3.org/2000/svg", svg = document.createElementNS(ns, "svg");
  const [middle, centre] = [Math.floor(height / 2), Math.floor(width / 2)];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${name}, radius ${radius}`);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const cell = document.createElementNS(ns, "rect");
    for (const [key, value] of Object.entries({ x, y, width: 1.02, height: 1.02, "fill-opacity": weight(y - middle, x - centre).toFixed(3) })) cell.setAttribute(key, value);
    svg.append(cell);
  }
  return make("figure", {}, svg, make("figcaption", {}, name, make("br"), `radius ${radius}`));
}

function curveFigure(row) {
  const points = page.trials.curves[row], unit = page.studies[field.study(row)].curve;
  if (!points.length || !unit) return [];
  const [given, main, loss, training] = points, epochs = given.length ? given : main.map((_, place) => place + 1);
  const two = unit.metric !== "loss" && [...loss, ...training].some((value) => value !== null);
  const line = (name, values, look, axis) => ({ x: epochs, y: values, name, mode: epochs.length > 1 ? "lines" : "markers", line: { width: 1.75, ...look }, ...axis,
    hovertemplate: `epoch %{x}: %{y:.4g}<extra>${name}</extra>` });
  const chart = make("div", { class: "curve" });
  const axis = { gridcolor: "#e6e4df", zeroline: false, automargin: true };
  const layout = {
    template: {}, height: 240, margin: { l: 8, r: 8, t: 28, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: "#6b6b70" }, hovermode: "closest", dragmode: false,
    xaxis: { ...axis, title: { text: "Epoch" }, tickformat: "d" }, 
    yaxis: { ...axis, title: { text: unit.symbol ? `${unit.title} (${unit.symbol})` : unit.title } },
    ...(two ? { yaxis2: { ...axis, overlaying: "y", side: "right", showgrid: false, tickmode: "auto", nticks: 5, title: { text: "Loss" } } } : {}),
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
  };
  const scaled = main.map((value) => value === null ? null : unit.scale * value), other = two ? { yaxis: "y2" } : {};
  chart.drawn = () => Plotly.newPlot(chart, [
    line(unit.title.toLowerCase() === unit.metric ? unit.metric : unit.title, scaled, { color: "#b4441f" }),
    ...(two ? [line("loss", loss, { color: "#2f7fc1" }, other)] : []),
    ...(training.some((value) => value !== null) ? [line("training loss", training, { color: "#2f7fc1", dash: "dot" }, other)] : []),
  ], layout, { responsive: true, displayModeBar: false });
  return [make("div", {}, make("h3", {}, "Curve"), chart)];
}

function openPanel(row) {
  const study = page.studies[field.study(row)];
  const shown = ordered(), at = shown.indexOf(row);
  const step = (by, text, words) => {
    const to = shown[at + by];
    return button(text, () => { location.hash = address(to); }, { "aria-label": words, ...(at < 0 || to === undefined ? { disabled: "" } : {}) });
  };
  const facts = [
    ...page.units.map((unit) => [unit.title, written(measured[unit.metric](row), unit)]).filter(([, text]) => text !== "–"),
    ["Epochs", String(field.epochs(row))], ["Seed", String(field.seed(row))], ["Device", field.device(row) || "–"], ["Key", page.trials.key[row]],
  ];
  const own = same(row), twins = rows.filter((other) => other !== row && field.study(other) === field.study(row) && same(other) === own);
  const differing = chosen(row, true).map((pair) => pair.join(" ").trim()).join("; ");
  const learned = maps(row);
  const block = (title, ...children) => children.length ? [make("div", {}, make("h3", {}, title), ...children)] : [];
  const text = (words) => words ? [make("pre", {}, words)] : [];
  const more = learned.length > SHOWN_MAPS ? [make("p", { class: "note" }, `${SHOWN_MAPS} of ${learned.length} maps.`)] : [];
  panel.replaceChildren(make("div", {},
    make("div", { class: "head" }, make("h2", { id: "panel-title" }, `Trial ${numbers[row]}`),
      make("div", { class: "buttons" }, step(-1, "‹", "The trial before it in the table"), step(1, "›", "The next trial in the table"), button("Close", closePanel))),
    make("p", {}, make("span", { class: `state ${field.state(row)}` }, field.state(row) + (onFront.has(row) ? ", on the front" : "")),
      ...(single ? [] : [` · ${study.name}`])),
    make("p", {}, ...chips(row)),
    ...(differing && differing !== label(row) ? [make("p", { class: "note" }, `Differs from ${study.against}: ${differing}`)] : []),
    make("dl", { class: "facts" }, ...facts.map(([name, words]) => make("div", {}, make("dt", {}, name), make("dd", {}, words)))),
    ...(twins.length ? block("The same config with other seeds", make("p", {}, ...twins.slice(0, 30).flatMap((other) =>
      [make("a", { href: address(other) }, `trial ${numbers[other]}`), " "]))) : []),
    ...block("Reason", ...text(field.remark(row))), ...block("Traceback", ...text(field.traceback(row))),
    ...curveFigure(row),
    ...(learned.length ? block("Maps: each kernel at its learned radius", make("div", { class: "maps" }, ...learned.slice(0, SHOWN_MAPS).map(drawnMap)), ...more) : []),
    ...block("Config", wholes && !wholes.has(row)
      ? make("p", { class: "note" }, `Of so many trials this page keeps curves and configs of ${wholes.size.toLocaleString("en")} alone; the database has all.`)
      : make("pre", {}, JSON.stringify(config(row), null, 2))),
  ));
  panel.hidden = false;
  document.body.classList.add("beside");
  panel.scrollTop = 0;
  panel.querySelectorAll(".curve").forEach((chart) => chart.drawn());
  pick({ open: row });
}

function closePanel() {
  if (panel.hidden) return;
  panel.hidden = true;
  document.body.classList.remove("beside");
  panel.replaceChildren();
  if (addressed(location.hash) !== undefined) history.replaceState(null, "", location.href.split("#")[0]);
  pick({ open: null });
}

function follow() {
  const row = addressed(location.hash);
  if (row === undefined) closePanel();
  else openPanel(row);
}
addEventListener("hashchange", follow);
addEventListener("keydown", (event) => { if (event.key === "Escape") closePanel(); });
