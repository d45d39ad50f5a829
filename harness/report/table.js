// -- the table of trials

const several = (of) => new Set(rows.map(of)).size > 1;
const shownColumns = [
  { title: "Trial", kind: "number", value: (row) => numbers[row], show: (row) => [make("a", { href: address(row) }, String(numbers[row]))] },
  ...(single ? [] : [{ title: "Study", kind: "", value: (row) => page.studies[field.study(row)].name }]),
  { title: "State", kind: "", value: field.state, show: (row) => [make("span", { class: `state ${field.state(row)}` }, field.state(row))] },
  { title: "What differs", kind: "differs", value: label,
    show: (row) => [...chips(row), ...(field.remark(row) ? [make("span", { class: "reason" }, field.remark(row))] : [])] },
  ...page.units.filter(({ shown }) => shown).map((unit) => ({
    title: unit.title, kind: "number", value: measured[unit.metric], show: (row) => [written(measured[unit.metric](row), unit)],
  })),
  { title: "Epochs", kind: "number optional", value: field.epochs },
  ...(several(field.seed) ? [{ title: "Seed", kind: "number", value: field.seed }] : []),
  ...(several(field.device) ? [{ title: "Device", kind: "optional", value: field.device }] : []),
];
const STEP = 25;
const view = { column: 0, down: false, words: [], only: "all", shown: STEP };
const ONLY = { all: () => true, front: (row) => onFront.has(row) };
for (const state of ["complete", "stopped", "failed", "running"]) ONLY[state] = (row) => field.state(row) === state;
const searched = [];

function matches(row) {
  if (picked.selected && !picked.selected.has(row)) return false;
  if (!ONLY[view.only](row)) return false;
  if (!view.words.length) return true;
  const text = searched[row] ??= [numbers[row], page.studies[field.study(row)].name, field.state(row), label(row), field.remark(row),
    field.device(row), page.trials.key[row]].join(" ").toLowerCase();
  return view.words.every((word) => text.includes(word));
}

function ordered() {
  const { value } = shownColumns[view.column], key = new Map();
  const found = rows.filter(matches);
  for (const row of found) key.set(row, value(row));
  return found.sort((one, other) => {
    const a = key.get(one), b = key.get(other);
    if (a === null || b === null) return (a === null) - (b === null);  // what is missing comes last, either way
    const order = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
    return view.down ? -order : order;
  });
}

function drawTable() {
  const found = ordered(), table = document.getElementById("table");
  table.style.setProperty("--columns", shownColumns.filter(({ kind }) => !/optional|differs/.test(kind)).length - 1);  // on a phone
  const head = shownColumns.map(({ title, kind }, index) => {
    const sorter = button(title, () => {
      view.down = view.column === index ? !view.down : kind.startsWith("number") && index > 0;
      view.column = index;
      drawTable();
      document.querySelectorAll("#table th button")[index].focus();
    });
    const sort = view.column === index ? { "aria-sort": view.down ? "descending" : "ascending" } : {};
    return make("th", { class: kind, scope: "col", ...sort }, sorter);
  });
  const body = found.slice(0, view.shown).map((row) => {
    const line = make("tr", row === picked.open ? { class: "open" } : {}, ...shownColumns.map(({ kind, show, value, title }) =>
      make("td", { class: kind, "data-title": title }, ...(show ? show(row) : [String(value(row) ?? "")]))));
    line.onclick = () => { if (!String(getSelection())) location.hash = address(row); };
    return line;
  });
  table.replaceChildren(make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
  const words = picked.selected ? " of the selected ones" : "";
  document.getElementById("found").textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")}${words}`;
  const more = document.getElementById("more");
  more.hidden = found.length <= view.shown;
  document.getElementById("rest").textContent = more.hidden ? ""
    : `These are ${view.shown.toLocaleString("en")} of ${found.length.toLocaleString("en")} trials; trials.csv, beside the page, has all.`;
  more.textContent = `Show ${Math.min(10 * STEP, found.length - view.shown).toLocaleString("en")} more`;
}

// The rows that the table shows, as CSV, with every metric and choice.
function csv() {
  const quote = (value) => /[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  const line = (cells) => cells.map((cell) => quote(String(cell ?? ""))).join(",");
  const metrics = Object.keys(measured);
  const head = [...(single ? [] : ["study"]), "number", "state", "front", "seed", "key", ...metrics, "epochs", "device", "reason",
    ...choices.map(({ name }) => name)];
  const lines = ordered().map((row) => line([
    ...(single ? [] : [page.studies[field.study(row)].name]), numbers[row], field.state(row), Number(onFront.has(row)), field.seed(row),
    page.trials.key[row], ...metrics.map((metric) => measured[metric](row)), field.epochs(row), field.device(row), field.remark(row),
    ...choices.map(({ words }) => words(row)),
  ]));
  return `${[line(head), ...lines].join("\n")}\n`;
}

function startTable() {
  const states = document.getElementById("states");
  for (const [name, test] of Object.entries(ONLY)) {
    const number = rows.filter(test).length;
    if (!number) continue;
    states.append(button(`${name} ${number.toLocaleString("en")}`, (event) => {
      view.only = name;
      view.shown = STEP;
      for (const other of states.children) other.setAttribute("aria-pressed", other === event.target);
      drawTable();
    }, { "aria-pressed": name === view.only }));
  }
  document.getElementById("filter").oninput = (event) => {
    view.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    view.shown = STEP;
    drawTable();
  };
  document.getElementById("more").onclick = () => { view.shown += 10 * STEP; drawTable(); };
  const download = document.getElementById("download");
  download.onclick = () => {
    URL.revokeObjectURL(download.href);
    download.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  };
  picked.listeners.push(drawTable);
  drawTable();
}
