// What all parts of the page share. Text enters the page as text alone, never as HTML.

const runs = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

// A label or prompt keeps its direction to itself.
const isolated = (text) => element("bdi", {}, text);

function signed(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? "−" : "+") + text;
}

const termName = (run, row) =>
  row.term.map((column) => run.units[column].name).join(row.directed ? " → " : " × ");

const rowOf = (run, column) =>
  run.rows.find((row) => row.term.length === 1 && row.term[0] === column);

function effectText(row) {
  if (row.effect === null) return "could not be measured";
  const interval = row.low === null ? "" : ` [${signed(row.low, 2)}, ${signed(row.high, 2)}]`;
  const sure = row.confirmed === null ? "" : row.confirmed ? ", confirmed" : ", not confirmed";
  return `${signed(row.effect)}${interval}${sure}`;
}

// A colour between "none" and one of the two ends; the theme decides what these are.
function colour(value, largest) {
  if (value === null || value === undefined) return "var(--ground)";
  const share = largest > 0 ? Math.sqrt(Math.min(1, Math.abs(value) / largest)) : 0;
  const end = value < 0 ? "var(--less)" : "var(--more)";
  return `color-mix(in oklab, ${end} ${(100 * share).toFixed(1)}%, var(--none))`;
}

const largestOf = (numbers) => Math.max(0, ...numbers.filter((n) => n !== null).map(Math.abs));

function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = Math.min(x + 12, innerWidth - box.width - 6);
  const top = y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}

const hideTip = () => { tip.hidden = true; };

// Shows text beside an element that is pointed at or has the focus.
function withTip(target, text) {
  const say = () => (typeof text === "function" ? text() : text);
  target.addEventListener("mousemove", (event) => showTip(say(), event.clientX, event.clientY));
  target.addEventListener("mouseleave", hideTip);
  target.addEventListener("blur", hideTip);
  target.addEventListener("focus", () => {
    if (!target.matches(":focus-visible")) return;
    const box = target.getBoundingClientRect();
    showTip(say(), box.right, box.bottom - 12);
  });
  return target;
}

// Bars from zero to the left and right: [[name, number]].
function bars(pairs) {
  const largest = largestOf(pairs.map(([, value]) => value)) || 1;
  const list = element("div", { class: "bars" });
  for (const [name, value] of pairs) {
    const bar = element("i");
    const share = value === null ? 0 : (50 * Math.abs(value)) / largest;
    bar.style.width = `${share}%`;
    bar.style.left = value < 0 ? `${50 - share}%` : "50%";
    bar.style.background = value < 0 ? "var(--less)" : "var(--more)";
    const label = element("span", { class: "name", title: name }, isolated(name));
    list.append(label, element("span", { class: "track", "aria-hidden": "true" }, bar),
      element("span", { class: "number" }, signed(value)));
  }
  return list;
}
