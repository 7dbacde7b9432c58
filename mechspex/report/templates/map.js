// The map of units: a grid of layers, or a list of what is in no layer; and the details of a unit.

const MOST_UNITS = 1500;

// The columns that are shown: all, or those with the largest numbers where there are many.
function shownUnits(run, numbers) {
  const all = run.units.map((unit, column) => column);
  if (all.length <= MOST_UNITS) return all;
  const named = new Set(run.rows.flatMap((row) => row.term).concat(run.members));
  const size = (column) => (named.has(column) ? Infinity : Math.abs(numbers?.[column] ?? 0));
  return all.sort((a, b) => size(b) - size(a)).slice(0, MOST_UNITS).sort((a, b) => a - b);
}

// Puts `make(column)` for every unit in its place.
function layOut(run, map, columns, make) {
  const inLayers = run.units.every((unit) => unit.layer !== null);
  map.classList.toggle("flow", !inLayers);
  map.replaceChildren();
  if (!inLayers) {
    map.append(...columns.map(make));
    return;
  }
  const layers = new Map();
  for (const column of columns) {
    const layer = run.units[column].layer;
    if (!layers.has(layer)) layers.set(layer, []);
    layers.get(layer).push(column);
  }
  const widest = Math.max(...[...layers.values()].map((row) => row.length));
  const cell = map.classList.contains("look-only") ? "minmax(10px, 22px)" : "minmax(22px, 38px)";
  map.style.gridTemplateColumns = `max-content repeat(${widest}, ${cell})`;
  const alike = run.units.every((unit) => unit.kind === run.units[0].kind);
  if (alike && widest > 1 && !map.classList.contains("look-only")) map.append(...columnHeads(run, widest));
  // The last layer on top, as in the network.
  for (const layer of [...layers.keys()].sort((a, b) => b - a)) {
    const label = element("span", { class: "layer" }, `L${layer}`);
    label.style.gridColumn = "1";
    map.append(label, ...layers.get(layer).map(make));
  }
}

// The numbers of a layer's units, above all layers that have as many.
function columnHeads(run, widest) {
  const row = run.units.filter((unit) => unit.layer === run.units[0].layer);
  if (row.length !== widest) return [];
  const corner = element("span", { class: "layer" });
  corner.style.gridColumn = "1";
  return [corner, ...row.map((unit) => element("span", { class: "head" }, String(unit.number)))];
}

// One stop of the Tab key for the whole map; arrow keys move inside.
function walkWithArrows(map) {
  const buttons = [...map.querySelectorAll("button")];
  buttons.forEach((button, place) => { button.tabIndex = place ? -1 : 0; });
  map.onkeydown = (event) => {
    const here = buttons.indexOf(document.activeElement);
    const box = document.activeElement.getBoundingClientRect();
    const middle = (one) => (one.left + one.right) / 2;
    const sideways = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const upwards = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    let next;
    if (here < 0) return;
    if (sideways) next = buttons[here + sideways];
    else if (upwards) {
      const away = (button) => upwards * (button.getBoundingClientRect().top - box.top);
      const rows = buttons.filter((button) => away(button) > 2);
      const nearest = Math.min(...rows.map(away));
      const row = rows.filter((button) => away(button) < nearest + 3);
      const distance = (button) => Math.abs(middle(button.getBoundingClientRect()) - middle(box));
      next = row.sort((a, b) => distance(a) - distance(b))[0];
    } else if (event.key === "Home") next = buttons[0];
    else if (event.key === "End") next = buttons.at(-1);
    else return;
    event.preventDefault();
    if (!next) return;
    document.activeElement.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
}

function unitButton(run, column, numbers, largest) {
  const unit = run.units[column];
  const row = rowOf(run, column);
  const button = element("button", { type: "button", "data-column": column, "aria-label": unit.name });
  if (unit.layer === null) button.append(isolated(unit.name));
  button.style.background = colour(numbers?.[column], largest);
  button.style.setProperty("--unit", colour(numbers?.[column], largest));
  button.classList.toggle("confirmed", Boolean(row?.confirmed));
  button.classList.toggle("member", run.members.includes(column));
  return button;
}

function drawMap(run, section, choose) {
  const map = section.querySelector('.map[data-use="look"]');
  const select = section.querySelector(".map-number");
  const legend = section.querySelector(".legend");
  const draw = () => {
    const numbers = run.numbers[select.value];
    const largest = numbers ? largestOf(numbers) : 0;
    layOut(run, map, shownUnits(run, numbers), (column) => {
      const button = unitButton(run, column, numbers, largest);
      button.addEventListener("click", () => choose({ unit: column }));
      return withTip(button, () => unitTip(run, column, select.value));
    });
    walkWithArrows(map);
    legend.replaceChildren(signed(-largest, 2), element("i"), signed(largest, 2));
  };
  select.addEventListener("change", draw);
  draw();
}

function unitTip(run, column, what) {
  const row = rowOf(run, column);
  const number = run.numbers[what]?.[column];
  const lines = [run.units[column].name];
  if (number !== null && number !== undefined) lines.push(`${what}: ${signed(number)}`);
  if (row) lines.push(`exact: ${effectText(row)}`);
  if (run.roles[run.units[column].name]) lines.push(run.roles[run.units[column].name]);
  return lines.join("\n");
}

// The details of a unit, or of a set of them: its partners, exact effects, numbers by output.
function drawDetails(run, section, chosen, choose) {
  const card = section.querySelector(".details");
  if (!card) return;
  if (!chosen) {
    card.replaceChildren(element("h3", {}, "Details"),
      element("p", { class: "note" }, "Choose a unit in the map, a node or line of the network, or a row of the table."));
    return;
  }
  const { unit } = chosen;
  const row = unit === undefined ? run.rows[chosen.row] : rowOf(run, unit);
  const name = unit === undefined ? termName(run, row) : run.units[unit].name;
  const parts = [element("h3", {}, isolated(name))];
  const say = (text) => parts.push(element("p", {}, isolated(text)));
  if (unit !== undefined) {
    for (const [what, numbers] of Object.entries(run.numbers)) {
      if (numbers[unit] !== null && !(row && what.startsWith("exact"))) say(`${what}: ${signed(numbers[unit])}`);
    }
    if (run.members.includes(unit)) say("member of the circuit");
    if (run.roles[name]) say(run.roles[name]);
  }
  if (row) say(`exact effect: ${effectText(row)}`);
  else if (unit !== undefined) say("its effect was not measured exactly");
  if (unit === undefined && row.recovered !== undefined) say(`recovered: ${signed(row.recovered)}`);
  if (row?.outputs) parts.push(...byOutput(run, row));
  if (unit !== undefined) parts.push(...partners(run, unit, choose), ...attention(run, name));
  card.replaceChildren(...parts);
}

function byOutput(run, row) {
  const kind = run.outputs ? "output" : "held-out output";
  const name = (place) => run.outputs?.[place] ?? `${kind} ${place + 1}`;
  return [element("h4", {}, `Effect on each ${kind}`),
    bars(row.outputs.map((value, place) => [name(place), value]))];
}

function partners(run, unit, choose) {
  const rows = run.rows.map((row, place) => ({ row, place }))
    .filter(({ row }) => row.term.length > 1 && row.term.includes(unit));
  if (!rows.length) return [element("p", { class: "note" }, "No set with this unit was measured.")];
  const list = element("ul", { class: "partners" });
  for (const { row, place } of rows) {
    const button = element("button", { type: "button", class: "term" }, isolated(termName(run, row)));
    button.addEventListener("click", () => choose({ row: place }));
    const relation = row.relation ? ` · ${row.relation}` : "";
    list.append(element("li", {}, button, ` ${effectText(row)}${relation}`));
  }
  return [element("h4", {}, "Acts together with"), list];
}

// Maps of all runs beside each other, in one scale.
function drawTogether() {
  const place = document.getElementById("together-maps");
  if (!place) return;
  const first = (run) => Object.entries(run.numbers)[0];
  const drawn = runs.filter((run) => first(run) && run.units.length <= MOST_UNITS
    && run.units.every((unit) => unit.layer !== null));
  const largest = Math.max(...drawn.map((run) => largestOf(first(run)[1])));
  for (const run of drawn) {
    const [what, numbers] = first(run);
    const map = element("div", { class: "map look-only", role: "img", "aria-label": `${run.name}: ${what}` });
    layOut(run, map, run.units.map((unit, column) => column), (column) => {
      const cell = element("span", { class: "unit" });
      cell.style.background = colour(numbers[column], largest);
      return withTip(cell, `${run.units[column].name}: ${signed(numbers[column])}`);
    });
    place.append(element("figure", {}, map, element("figcaption", {}, isolated(`${run.name}: ${what}`))));
  }
}
