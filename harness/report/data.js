"use strict";

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const page = read("page-data");
const single = page.studies.length === 1;
const units = Object.fromEntries(page.units.map((unit) => [unit.metric, unit]));

// A column as `coded` wrote it, by row.
const column = (coded) => Array.isArray(coded) ? (row) => coded[row] : coded.at ? (row) => coded.of[coded.at[row]] : () => coded.of[0];
const field = Object.fromEntries(["study", "state", "epochs", "seed", "device", "remark", "traceback"].map((name) => [name, column(page.trials[name])]));
const numbers = page.trials.number;
const measured = Object.fromEntries(Object.entries(page.trials.values).map(([metric, coded]) => [metric, column(coded)]));
const onFront = new Set(page.trials.front);
const choices = page.trials.choices.map((choice) => ({ ...choice, words: column(choice.words) }));
const rows = numbers.map((_, row) => row);

const places = page.studies.map(() => new Map());
for (const row of rows) places[field.study(row)].set(numbers[row], row);
const rowOf = (study, number) => places[study]?.get(number);
const address = (row) => `#trial=${single ? "" : `${page.studies[field.study(row)].name}:`}${numbers[row]}`;

// The trial that an address names: #trial=17, on a page of several studies #trial=NAME:17.
function addressed(hash) {
  const found = /^#trial=(?:(.*):)?(\d+)$/.exec(decodeURIComponent(hash));
  return found ? rowOf(found[1] ? page.studies.findIndex(({ name }) => name === found[1]) : 0, Number(found[2])) : undefined;
}

// An element with its children; text is always set as text, never read as markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function button(text, onclick, attributes = {}) {
  const element = make("button", { type: "button", ...attributes }, text);
  element.onclick = onclick;
  return element;
}

function written(value, unit) {
  if (value === null || value === undefined) return "–";
  const digits = { minimumFractionDigits: unit.decimals, maximumFractionDigits: unit.decimals };
  const number = (value * unit.scale).toLocaleString("en", digits);
  return unit.symbol ? `${number}\u00a0${unit.symbol}` : number;
}

// What was chosen, place by place: [["stage 2", "ExpAtt · gaussian"], ...]; of a hover text what differs from the usual alone.
function chosen(row, differing = false) {
  const found = new Map();
  for (const choice of choices) {
    const words = choice.words(row);
    if (words === null || (differing && words === choice.usual[field.study(row)])) continue;
    found.set(choice.place, [...(found.get(choice.place) ?? []), words]);
  }
  return [...found].map(([place, words]) => [place, words.join(" · ")]);
}

const label = (row) => chosen(row).map((pair) => pair.join(" ").trim()).join("; ");
const chips = (row) => chosen(row).map(([place, words]) =>
  place ? make("span", { class: "chip" }, make("i", {}, place), ` ${words}`) : make("span", { class: "chip" }, words));
const same = (row) => choices.map((choice) => choice.words(row) ?? "").join("\n");

// The config of a trial, put together from the values at its paths; empty where the page does not keep it.
function config(row) {
  const at = wholes ? wholes.get(row) : row;
  let found = {};
  for (const { path, values } of at === undefined ? [] : configs) {
    const [value] = values(at);
    if (value === undefined) continue;
    if (!path.length) { found = value; continue; }
    let part = found;
    path.slice(0, -1).forEach((name, depth) => { part = part[name] ??= typeof path[depth + 1] === "number" ? [] : {}; });
    part[path.at(-1)] = Array.isArray(value) || (value && typeof value === "object") ? structuredClone(value) : value;
  }
  return found;
}
const wholes = page.trials.whole && new Map(page.trials.whole.map((row, place) => [row, place]));
const configs = page.trials.config.map(({ path, values }) => ({ path, values: column(values) }));

// What a reader has picked: one open trial, and some selected ones; whoever shows it listens.
const picked = { open: null, selected: null, listeners: [] };
function pick(change) {
  Object.assign(picked, change);
  for (const listener of picked.listeners) listener();
}
