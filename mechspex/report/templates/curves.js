// Curves of faithfulness by size, with their intervals.

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function drawCurve(curve, figure) {
  const [width, height, left, bottom, top] = [440, 230, 44, 34, 12];
  const finite = curve.scores.flat().filter((number) => number !== null);
  const low = Math.min(0, ...finite);
  const high = Math.max(1, ...finite);
  const x = (place) => left + ((width - left - 14) * (place + 0.5)) / curve.sizes.length;
  const y = (value) => height - bottom - ((height - bottom - top) * (value - low)) / (high - low);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${curve.title}: faithfulness by size` });
  for (const value of [0, 0.5, 1]) {
    chart.append(svg("line", { class: "axis", x1: left, x2: width - 8, y1: y(value), y2: y(value) }),
      svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, value));
  }
  const points = curve.scores.map(([value, from, to], place) => ({ value, from, to, place }))
    .filter(({ value }) => value !== null);
  const path = (key, list) => list.map((point) => `${x(point.place)},${y(point[key] ?? point.value)}`);
  chart.append(svg("polygon", { class: "band", points: [...path("from", points), ...path("to", [...points].reverse())].join(" ") }),
    svg("polyline", { class: "line", points: path("value", points).join(" ") }));
  const every = Math.ceil(curve.sizes.length / 10);
  curve.sizes.forEach((size, place) => {
    if (place % every === 0) chart.append(svg("text", { x: x(place), y: height - bottom + 16, "text-anchor": "middle" }, size));
  });
  chart.append(svg("text", { x: (left + width) / 2, y: height - 3, "text-anchor": "middle" }, "units kept"));
  for (const point of points) {
    const text = `${curve.sizes[point.place]} units: ${signed(point.value)} [${signed(point.from)}, ${signed(point.to)}]`;
    const dot = svg("circle", { cx: x(point.place), cy: y(point.value), r: 4, tabindex: 0, role: "img", "aria-label": text });
    chart.append(withTip(dot, text));
  }
  figure.append(chart);
}
