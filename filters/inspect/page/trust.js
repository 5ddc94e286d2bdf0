// The model against the judge.
function makeTrust() {
  const trust = data.trust;
  const part = section("trust", "Can the classifier be trusted here?", trust.lead, { short: "Trust" });
  for (const note of trust.notes) part.append(make("p", { class: `banner ${note.alarm ? "alarm" : ""}` }, note.text));
  if (trust.metrics.length) {
    part.append(make("h3", {}, trust.metrics_title), table(trust.metrics_columns, trust.metrics));
  }
  const charts = make("div", { class: "columns" });
  part.append(charts);
  const { draw, move } = figures(charts, trust.charts);
  on("view", draw);
  on("threshold", move);
}
