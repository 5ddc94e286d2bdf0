// A page of sections with tables and charts: data.sections.
const score = () => data.threshold;
const said = (value) => value.toPrecision(4);
makeHead(data.name, data.subtitle);
for (const { id, title, lead, banner, notes, tables, charts } of data.sections) {
  const part = section(id, title, lead);
  if (banner) part.append(make("p", { class: `banner ${banner.alarm ? "alarm" : ""}` }, banner.text));
  if (notes.length) part.append(make("ul", {}, notes.map((note) => foreign(note, "li"))));
  const holder = make("div", { class: "columns" });
  for (const { columns, rows, now, text, foot, fold } of tables) {
    const shown = table(columns, rows, { textColumns: text, now, label: title });
    part.append(fold ? make("details", {}, make("summary", {}, fold), shown) : shown);
    if (foot) part.append(make("p", { class: "muted" }, foot));
  }
  if (charts.length) { part.append(holder); figures(holder, charts); }
}
put(document.getElementById("footer"), make("p", {}, `Made by finesieve ${data.finesieve}. Nothing on this page is loaded from elsewhere. Charts: ${data.library}.`));
document.documentElement.dataset.ready = "true";
