// Everything begins here: each run's parts, and what they tell each other.

function startRun(run) {
  const section = document.getElementById(run.id);
  const choose = (chosen) => {
    drawDetails(run, section, chosen, choose);
    mark(run, section, chosen);
  };
  if (section.querySelector(".map-number")) drawMap(run, section, choose);
  drawDetails(run, section, null, choose);
  if (run.rows.length) {
    watchFilters(run, section, drawNetwork(run, section, choose));
    section.querySelector(".effect-table").addEventListener("click", (event) => {
      const row = event.target.closest("tbody tr");
      if (!row) return;
      const place = Number(row.dataset.row);
      const [column, ...others] = run.rows[place].term;
      choose(others.length ? { row: place } : { unit: column });
    });
  }
  startWhatIf(run, section);
  section.querySelectorAll("[data-curve]").forEach((figure) => drawCurve(run.curves[figure.dataset.curve], figure));
}

// Marks what is chosen wherever it is shown.
function mark(run, section, chosen) {
  const row = chosen.row ?? run.rows.indexOf(rowOf(run, chosen.unit));
  section.querySelectorAll(".effect-table tbody tr").forEach((line) => {
    line.classList.toggle("chosen", Number(line.dataset.row) === row);
  });
  const columns = chosen.unit === undefined ? run.rows[chosen.row].term : [chosen.unit];
  section.querySelectorAll('.map[data-use="look"] button').forEach((button) => {
    button.classList.toggle("chosen", columns.includes(Number(button.dataset.column)));
  });
}

document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
addEventListener("scroll", hideTip, { passive: true });
document.querySelectorAll("table.sortable").forEach(makeSortable);
runs.forEach(startRun);
drawTogether();
document.documentElement.dataset.ready = "yes";
