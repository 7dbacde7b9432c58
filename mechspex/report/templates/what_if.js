// What if: the recovered function, evaluated for any mask, and the measured masks near it.

const NEAREST = 6;

// f̂(m) = Σ_S c_S ∏_{i∈S} (kept or ablated factor of unit i)
function predict(what, off) {
  let sum = 0;
  for (let place = 0; place < what.terms.length; place += 1) {
    let product = what.coefficients[place];
    for (const column of what.terms[place]) product *= off[column] ? what.ablated : what.kept;
    sum += product;
  }
  return sum;
}

// Measured masks, eight units a byte, the first unit in the highest bit.
function unpack(measured, nUnits) {
  const bytes = Uint8Array.from(atob(measured.masks), (letter) => letter.charCodeAt(0));
  const width = Math.ceil(nUnits / 8);
  return measured.values.map((value, place) => {
    const off = new Uint8Array(nUnits);
    for (let column = 0; column < nUnits; column += 1) {
      off[column] = (bytes[place * width + (column >> 3)] >> (7 - (column & 7))) & 1 ? 0 : 1;
    }
    return { value, off };
  });
}

// e₀ + q·√off(m), where a unit counts by its weight; null where more is off than was tested.
function halfWidth(interval, off) {
  if (!interval) return null;
  const amount = off.reduce((sum, bit, column) => sum + (bit ? interval.weights[column] : 0), 0);
  const nOff = off.filter(Boolean).length;
  return amount > interval.largest * (1 + 1e-9) || nOff > interval.most ? null : interval.at_clean + interval.rate * Math.sqrt(amount);
}

function startWhatIf(run, section) {
  const card = section.querySelector(".what-if");
  const what = run.what_if;
  if (!card || !what) return;
  const off = new Uint8Array(run.units.length);
  const measured = unpack(what.measured, run.units.length);
  const map = card.querySelector(".map");
  const numbers = Object.values(run.numbers)[0];
  const buttons = new Map();
  layOut(run, map, shownUnits(run, numbers), (column) => {
    const button = unitButton(run, column, numbers, largestOf(numbers ?? []));
    button.classList.remove("confirmed");
    button.addEventListener("click", () => { off[column] ^= 1; read(); });
    buttons.set(column, button);
    return withTip(button, () => `${run.units[column].name}: ${off[column] ? "off" : "on"}`);
  });
  walkWithArrows(map);

  const read = () => {
    for (const [column, button] of buttons) button.setAttribute("aria-pressed", String(!off[column]));
    const nOff = off.reduce((sum, bit) => sum + bit, 0);
    showReading(run, card, predict(what, off), halfWidth(what.interval, off), off, nOff);
    showNearest(run, card, off, nearest(measured, off), (mask) => { off.set(mask); read(); });
  };
  const set = (isOff) => { off.forEach((_, column) => { off[column] = isOff(column) ? 1 : 0; }); read(); };
  const press = (name, isOff) => card.querySelector(name)?.addEventListener("click", () => set(isOff));
  press(".all-on", () => false);
  press(".all-off", () => true);
  press(".members-only", (column) => !run.members.includes(column));
  press(".members-off", (column) => run.members.includes(column));
  const column = new Map(run.units.map((unit, place) => [unit.name.toLowerCase(), place]));
  const input = card.querySelector(".unit-name");
  input.addEventListener("change", () => {
    const place = column.get(input.value.trim().toLowerCase());
    if (place === undefined) return;
    off[place] ^= 1;
    input.value = "";
    read();
  });
  card.querySelector(".about-interval").textContent = aboutInterval(what.interval);
  card.querySelector(".measured-count").textContent = measured.length
    ? `${measured.length.toLocaleString("en")} of the run's ${what.measured.n.toLocaleString("en")} measured masks are in this page.`
    : "No measured masks: the run's values are not at hand.";
  read();
}

function aboutInterval(interval) {
  if (!interval) return "No interval: the masks that scored this function are not at hand.";
  if (!interval.n_masks) return "All masks were measured: no prediction is further off than this.";
  return `The interval holds the measured value in ${Math.round(100 * interval.level)} of 100 masks like the ${interval.n_masks} held-out ones it was made from, `
    + `which switch ${interval.fewest} to ${interval.most} units off. It is the wider the more is off, each unit counted by the size of its effect. Where more is off than in any of these, or more units are, nothing is known.`;
}

function showReading(run, card, value, half, off, nOff) {
  const output = card.querySelector(".value");
  output.textContent = signed(value);
  output.dataset.value = value;
  output.dataset.half = half ?? "";
  const interval = card.querySelector(".interval");
  interval.textContent = half === null ? "no interval" : `[${signed(value - half)}, ${signed(value + half)}]`;
  const names = run.units.filter((unit, column) => off[column]).map((unit) => unit.name);
  const listed = names.slice(0, 12).join(", ") + (names.length > 12 ? ", …" : "");
  card.querySelector(".off-count").replaceChildren(
    `${nOff} of ${off.length} off${nOff ? ": " : ""}`, isolated(listed));
  drawGauge(card.querySelector(".gauge"), run.what_if.ends, value, half);
}

function drawGauge(gauge, [whole, none], value, half) {
  const low = Math.min(whole, none, value - (half ?? 0));
  const high = Math.max(whole, none, value + (half ?? 0));
  const at = (number) => (100 * (number - low)) / (high - low || 1);
  const parts = [];
  const end = (number, text) => {
    const label = element("span", { class: "end" }, `${text} ${signed(number, 2)}`);
    if (at(number) > 50) label.style.right = `${100 - at(number)}%`;
    else label.style.left = `${at(number)}%`;
    parts.push(label);
  };
  end(whole, "all on");
  end(none, "all off");
  if (half !== null) {
    const band = element("span", { class: "band" });
    band.style.left = `${at(value - half)}%`;
    band.style.width = `${at(value + half) - at(value - half)}%`;
    parts.push(band);
  }
  const mark = element("span", { class: "mark" });
  mark.style.left = `${at(value)}%`;
  gauge.replaceChildren(...parts, mark);
}

function nearest(measured, off) {
  const distance = (mask) => mask.off.reduce((sum, bit, column) => sum + (bit !== off[column]), 0);
  return measured.map((mask) => ({ ...mask, distance: distance(mask) }))
    .sort((a, b) => a.distance - b.distance).slice(0, NEAREST);
}

function showNearest(run, card, off, masks, apply) {
  const body = card.querySelector(".nearest tbody");
  body.replaceChildren(...masks.map((mask) => {
    const differing = run.units.map((unit, column) => column).filter((column) => mask.off[column] !== off[column]);
    const names = differing.slice(0, 4).map((column) => `${mask.off[column] ? "−" : "+"}${run.units[column].name}`);
    const text = mask.distance
      ? `${mask.distance}: ${names.join(" ")}${differing.length > 4 ? " …" : ""}` : "nothing: this very mask";
    const go = element("button", { type: "button", class: "term" }, "take it");
    go.addEventListener("click", () => apply(mask.off));
    return element("tr", {}, element("td", {}, isolated(text)),
      element("td", { class: "number" }, signed(mask.value)),
      element("td", { class: "number" }, signed(predict(run.what_if, mask.off))), element("td", {}, go));
  }));
}
