// Tables that are sorted by a click on a heading, and the filters of the exact effects.

function makeSortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, place) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") === "descending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[place].dataset.sort ?? "";
      const isNumber = [...table.tBodies[0].rows].every((row) => !Number.isNaN(Number(key(row))));
      const order = (a, b) => {
        // What is empty comes last, either way.
        if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
        const difference = isNumber ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b), "en", { numeric: true });
        return up ? difference : -difference;
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    });
  });
}

// Calls `redraw` with the rows that pass the filters, whenever these change.
function watchFilters(run, section, redraw) {
  const find = (name) => section.querySelector(`.filter-${name}`);
  const [order, strength, confirmed, unit] = ["order", "strength", "confirmed", "unit"].map(find);
  const largest = largestOf(run.rows.map((row) => row.effect));
  const rows = run.rows.map((row, place) => ({ row, place, name: termName(run, row).toLowerCase() }));
  const table = section.querySelector(".effect-table");
  const rowAt = new Map([...table.tBodies[0].rows].map((row) => [Number(row.dataset.row), row]));
  const update = () => {
    // The slider runs in squares, as most effects are small.
    const least = largest * (strength.value / 100) ** 2;
    strength.nextElementSibling.textContent = least.toFixed(2);
    const passes = ({ row, name }) =>
      (!order.value || row.term.length === Number(order.value) || (order.value === "3" && row.term.length > 3))
      && Math.abs(row.effect ?? 0) >= least && (!confirmed.checked || row.confirmed)
      && name.includes(unit.value.trim().toLowerCase());
    const passing = rows.filter(passes);
    const places = new Set(passing.map(({ place }) => place));
    rowAt.forEach((row, place) => { row.hidden = !places.has(place); });
    section.querySelector(".count").textContent = `${passing.length} of ${rows.length} shown`;
    redraw(passing);
  };
  for (const control of [order, strength, confirmed, unit]) control.addEventListener("input", update);
  update();
}
