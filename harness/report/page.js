
"use strict";

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const data = read("table-data");
const trials = data.rows.map(([number, state, front, differs, values, epochs, seed, key, device, reason, traceback, changes]) => ({
  number, state, front, differs, values, epochs, seed, key, changes,
  device: data.texts[device], reason: data.texts[reason], traceback: data.texts[traceback],
  label: differs.map((pair) => pair.join(" ").trim()).join("; "),
}));

// An element with its children; text is always set as text, never read as markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function written(value, metric) {
  if (value === null) return "–";
  const digits = { minimumFractionDigits: metric.decimals, maximumFractionDigits: metric.decimals };
  const number = (value * metric.scale).toLocaleString("en", digits);
  return metric.symbol ? `${number}\u00a0${metric.symbol}` : number;
}

const chips = (trial) => trial.differs.map(([place, chosen]) =>
  place ? make("span", { class: "chip" }, make("i", {}, place), ` ${chosen}`) : make("span", { class: "chip" }, chosen));

// -- the table

const several = (name) => new Set(trials.map((trial) => trial[name])).size > 1;
const columns = [
  { title: "Trial", kind: "number", value: (t) => t.number, show: (t) => [make("a", { href: `#trial=${t.number}` }, String(t.number))] },
  { title: "State", kind: "", value: (t) => t.state, show: (t) => [make("span", { class: `state ${t.state}` }, t.state)] },
  { title: "What differs", kind: "differs", value: (t) => t.label,
    show: (t) => [...chips(t), ...(t.reason ? [make("span", { class: "reason" }, t.reason)] : [])] },
  ...data.metrics.map((metric, index) => ({
    title: metric.title, kind: metric.title === "Loss" || metric.title === "Time" ? "number optional" : "number",
    value: (t) => t.values[index], show: (t) => [written(t.values[index], metric)],
  })),
  { title: "Epochs", kind: "number optional", value: (t) => t.epochs, show: (t) => [String(t.epochs)] },
  ...(several("seed") ? [{ title: "Seed", kind: "number", value: (t) => t.seed, show: (t) => [String(t.seed)] }] : []),
  ...(several("device") ? [{ title: "Device", kind: "optional", value: (t) => t.device, show: (t) => [t.device] }] : []),
];
const STEP = 50;
const view = { column: 0, down: false, words: [], only: "all", shown: STEP };

const ONLY = { all: () => true, front: (t) => t.front };
for (const state of ["complete", "stopped", "failed", "running"]) ONLY[state] = (t) => t.state === state;

function matches(trial) {
  trial.text ??= [trial.number, trial.state, trial.label, trial.reason, trial.device, trial.key].join(" ").toLowerCase();
  return ONLY[view.only](trial) && view.words.every((word) => trial.text.includes(word));
}

function compare(one, other) {
  const [a, b] = [one, other].map(columns[view.column].value);
  if (a === null || b === null) return (a === null) - (b === null);  // what is missing comes last, either way
  const order = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
  return view.down ? -order : order;
}

function draw() {
  const found = trials.filter(matches).sort(compare);
  const table = document.getElementById("table");
  table.style.setProperty("--columns", columns.filter(({ kind }) => !/optional|differs/.test(kind)).length - 1);  // on a phone
  const head = columns.map(({ title, kind }, index) => {
    const button = make("button", { type: "button" }, title);
    button.onclick = () => {
      view.down = view.column === index ? !view.down : kind.startsWith("number") && index > 0;
      view.column = index;
      draw();
      document.querySelectorAll("#table th button")[index].focus();
    };
    const sort = view.column === index ? { "aria-sort": view.down ? "descending" : "ascending" } : {};
    return make("th", { class: kind, scope: "col", ...sort }, button);
  });
  const rows = found.slice(0, view.shown).map((trial) => {
    const row = make("tr", {}, ...columns.map(({ kind, show }) => make("td", { class: kind }, ...show(trial))));
    row.onclick = () => { if (!String(getSelection())) location.hash = `trial=${trial.number}`; };
    return row;
  });
  table.replaceChildren(make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  document.getElementById("found").textContent = `${found.length.toLocaleString("en")} of ${trials.length.toLocaleString("en")}`;
  const more = document.getElementById("more");
  more.hidden = found.length <= view.shown;
  more.textContent = `Show ${Math.min(10 * STEP, found.length - view.shown).toLocaleString("en")} more`;
}

function start() {
  const states = document.getElementById("states");
  for (const [name, test] of Object.entries(ONLY)) {
    const number = trials.filter(test).length;
    if (!number) continue;
    const button = make("button", { type: "button", "aria-pressed": name === view.only }, `${name} ${number.toLocaleString("en")}`);
    button.onclick = () => {
      view.only = name;
      view.shown = STEP;
      for (const other of states.children) other.setAttribute("aria-pressed", other === button);
      draw();
    };
    states.append(button);
  }
  document.getElementById("filter").oninput = (event) => {
    view.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    view.shown = STEP;
    draw();
  };
  document.getElementById("more").onclick = () => { view.shown += 10 * STEP; draw(); };
  draw();
}

// -- one trial, opened by #trial=17

const detail = document.getElementById("detail");

function config(trial) {
  let found = structuredClone(data.config);
  for (const [path, value] of trial.changes) {
    if (!path.length) { found = value; continue; }
    path.slice(0, -1).reduce((part, name) => part[name], found)[path.at(-1)] = value;
  }
  return found;
}

function open(trial) {
  const close = make("button", { type: "button" }, "Close");
  close.onclick = () => detail.close();
  const facts = [
    ...data.metrics.map((metric, index) => [metric.title, written(trial.values[index], metric)]),
    ["Epochs", String(trial.epochs)], ["Seed", String(trial.seed)], ["Device", trial.device || "–"], ["Key", trial.key],
  ];
  const block = (title, text) => text ? [make("div", {}, make("h3", {}, title), make("pre", {}, text))] : [];
  detail.replaceChildren(make("div", {},
    make("div", { class: "head" }, make("h2", { id: "detail-title" }, `Trial ${trial.number}`), close),
    make("p", {}, make("span", { class: `state ${trial.state}` }, trial.state + (trial.front ? ", on the front" : ""))),
    make("p", {}, ...chips(trial)),
    make("dl", { class: "facts" }, ...facts.map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text)))),
    ...block("Reason", trial.reason), ...block("Traceback", trial.traceback),
    ...block("Config", JSON.stringify(config(trial), null, 2)),
  ));
  detail.dataset.hash = location.hash;
  if (!detail.open) detail.showModal();
  detail.scrollTop = 0;
}

function follow() {
  const number = /^#trial=(\d+)$/.exec(location.hash)?.[1];
  const trial = trials.find((one) => one.number === Number(number));
  if (trial) open(trial);
  else if (detail.open) detail.close();
}

detail.addEventListener("close", () => {
  if (location.hash === detail.dataset.hash) history.replaceState(null, "", location.href.split("#")[0]);
});
detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });
addEventListener("hashchange", follow);

// -- figures

const touch = matchMedia("(pointer: coarse)").matches;  // a finger scrolls the page, it does not zoom
const settings = {
  responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover",
  modeBarButtons: [["toImage", "resetScale2d"]],  // by name: the default bar can send the data to a server
  toImageButtonOptions: { format: "svg" },
};
const plots = Object.entries(read("figure-data")).map(([id, figure]) => {
  const plot = document.getElementById(id);
  if (innerWidth < 640) figure.layout.legend.title = {};  // no room; the note below tells it too
  Plotly.newPlot(plot, figure.data, { ...figure.layout, dragmode: touch ? false : "zoom" }, settings);
  plot.on("plotly_click", (event) => { location.hash = `trial=${[event.points[0].customdata].flat()[0]}`; });
  return plot;
});
addEventListener("beforeprint", () => plots.forEach((plot) => Plotly.relayout(plot, { autosize: false, width: 640, height: 380 })));
addEventListener("afterprint", () => plots.forEach((plot) => Plotly.relayout(plot, { autosize: true, width: null, height: null })));

if (trials.length) start();
follow();
