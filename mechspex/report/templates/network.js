// The network of interactions, drawn by vis-network: units in the rows of their layers.

const ROW = 75;

const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Units of a layer stand in a row, by number; units of no layer on a circle.
function places(run, columns, aspect) {
  const where = new Map();
  if (columns.some((column) => run.units[column].layer === null)) {
    const radius = 45 * Math.max(2, columns.length / 2);
    columns.forEach((column, place) => {
      const angle = (2 * Math.PI * place) / columns.length - Math.PI / 2;
      where.set(column, { x: radius * Math.cos(angle), y: radius * Math.sin(angle) });
    });
    return where;
  }
  const layers = [...new Set(columns.map((column) => run.units[column].layer))].sort((a, b) => a - b);
  const rows = layers.map((layer) => columns.filter((column) => run.units[column].layer === layer));
  // As wide as the space is, as far as labels need it.
  const widest = Math.max(...rows.map((row) => row.length));
  const step = Math.min(300, Math.max(95, (ROW * layers.length * aspect) / (widest + 1)));
  rows.forEach((row, height) => {
    row.forEach((column, place) => {
      // Rows are set off from one another, so that lines do not run through nodes.
      const x = step * (place - (row.length - 1) / 2) + (height % 2 ? step / 3 : 0);
      where.set(column, { x, y: -ROW * height });
    });
  });
  return where;
}

function nodesAndEdges(run, rows, aspect) {
  const sets = rows.filter(({ row }) => row.term.length > 1);
  const used = new Set(rows.flatMap(({ row }) => row.term));
  const columns = [...used].sort((a, b) => a - b);
  const where = places(run, columns, aspect);
  const alone = columns.map((column) => rowOf(run, column)?.effect ?? 0);
  const largestAlone = largestOf(alone) || 1;
  const largest = largestOf(sets.map(({ row }) => row.effect)) || 1;
  const tint = (value) => themed(value < 0 ? "--less" : "--more");
  const font = { color: themed("--text"), size: 15, strokeWidth: 4, strokeColor: themed("--ground") };
  const nodes = columns.map((column, place) => ({
    id: `u${column}`, label: run.units[column].name.slice(0, 24), ...where.get(column), font,
    shape: "dot", size: 6 + 14 * Math.sqrt(Math.abs(alone[place]) / largestAlone),
    color: alone[place] ? tint(alone[place]) : themed("--muted"),
    borderWidth: run.members.includes(column) ? 4 : 1,
  }));
  const edges = [];
  const line = (row) => ({
    width: 1 + 7 * Math.abs(row.effect ?? 0) / largest, color: { color: tint(row.effect), hover: tint(row.effect), highlight: tint(row.effect) },
    dashes: row.confirmed === false, smooth: { type: "curvedCW", roundness: 0.12 },
  });
  for (const { row, place } of sets) {
    const [one, other] = row.term;
    if (row.term.length === 2) {
      edges.push({ id: `r${place}`, from: `u${one}`, to: `u${other}`, arrows: row.directed ? "to" : "", ...line(row) });
      continue;
    }
    const middle = row.term.map((column) => where.get(column));
    const mean = (axis) => middle.reduce((sum, at) => sum + at[axis], 0) / middle.length;
    nodes.push({ id: `r${place}`, x: mean("x") + 18, y: mean("y") + 10, shape: "diamond", size: 9, color: tint(row.effect) });
    row.term.forEach((column) => edges.push({ id: `r${place}u${column}`, from: `r${place}`, to: `u${column}`, ...line(row) }));
  }
  return { nodes, edges };
}

function drawNetwork(run, section, choose) {
  const place = section.querySelector(".network");
  const card = section.querySelector(".network-card");
  if (!run.rows.some((row) => row.term.length > 1)) {
    card.hidden = true;
    return () => {};
  }
  const data = { nodes: new vis.DataSet(), edges: new vis.DataSet() };
  const network = new vis.Network(place, data, {
    physics: false,
    interaction: { hover: true, dragNodes: false, dragView: false, zoomView: false, keyboard: false },
  });
  // For whoever looks at the page from its console, or tests it.
  place.network = network;
  const read = (id) => {
    const [, kind, number] = String(id).match(/^([ur])(\d+)/);
    return kind === "u" ? { unit: Number(number) } : { row: Number(number) };
  };
  const tipAt = (id, event) => {
    const chosen = read(id);
    const text = chosen.unit === undefined
      ? `${termName(run, run.rows[chosen.row])}\n${effectText(run.rows[chosen.row])}`
      : unitTip(run, chosen.unit, "");
    showTip(text, event.clientX, event.clientY);
  };
  network.on("hoverNode", ({ node, event }) => tipAt(node, event));
  network.on("hoverEdge", ({ edge, event }) => tipAt(edge, event));
  network.on("blurNode", hideTip);
  network.on("blurEdge", hideTip);
  network.on("click", ({ nodes, edges }) => {
    if (nodes.length || edges.length) choose(read(nodes[0] ?? edges[0]));
  });
  const zoom = (factor) => network.moveTo({ scale: network.getScale() * factor });
  section.querySelector(".zoom-in").addEventListener("click", () => zoom(1.3));
  section.querySelector(".zoom-out").addEventListener("click", () => zoom(1 / 1.3));
  section.querySelector(".zoom-fit").addEventListener("click", () => network.fit());
  place.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const ids = data.nodes.getIds();
    if (!step || !ids.length) return;
    event.preventDefault();
    const here = ids.indexOf(network.getSelectedNodes()[0]);
    const next = ids[(here + step + ids.length) % ids.length];
    network.selectNodes([next]);
    choose(read(next));
  });
  let shown = [];
  const draw = (rows) => {
    shown = rows;
    const drawn = nodesAndEdges(run, rows, place.clientWidth / place.clientHeight);
    data.nodes.clear();
    data.edges.clear();
    data.nodes.add(drawn.nodes);
    data.edges.add(drawn.edges);
    network.fit();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(shown));
  return draw;
}
