// Where a head looks: a square for each token that looks and token that is looked at.

// A blank or a line break is a token like any other, and has to be seen.
const tokenText = (token) => token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ /, "␣") || "∅";

function attention(run, name) {
  const pattern = run.patterns?.heads[name];
  if (!pattern) return [];
  const tokens = run.patterns.tokens.map(tokenText);
  const grid = element("div", { class: "attention", role: "group", "aria-label": `Where ${name} looks` });
  grid.style.gridTemplateColumns = `max-content repeat(${tokens.length}, minmax(12px, 22px))`;
  const label = (text, kind) => element("span", { class: kind, title: text, "aria-hidden": "true" }, isolated(text));
  grid.append(element("span"), ...tokens.map((token) => label(token, "key")));
  pattern.forEach((row, query) => {
    grid.append(label(tokens[query], "query"));
    row.forEach((thousandths, key) => {
      // A token cannot look ahead; a model that can has numbers there.
      if (key > query && !thousandths) return grid.append(element("span"));
      const words = `${tokens[query]} → ${tokens[key]}: ${(thousandths / 1000).toFixed(3)}`;
      const square = element("button", { type: "button", "aria-label": words });
      square.style.background = colour(thousandths, 1000);
      return grid.append(withTip(square, words));
    });
  });
  walkWithArrows(grid);
  return [element("h4", {}, "Where it looks on the first prompt"),
    element("div", { class: "scroll" }, grid),
    element("p", { class: "note" }, "Rows look, columns are looked at; the fuller the colour, the more.")];
}
