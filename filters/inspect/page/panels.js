// The bar, the solver, what thresholds keep, why records were not kept, how far to trust the model, where it comes from.
function expectedAt(kind) {
  if (!data.expected) return null;
  const value = data.expected[kind] && data.expected[kind][state.at];
  return value === undefined ? null : value;
}

const precisionName = data.expected && data.expected.kind === "expected" ? "expected precision" : "precision on labels";

function interval() {
  const low = expectedAt("precision_low"), high = expectedAt("precision_high");
  return low === null || high === null ? "" : `${low.toFixed(2)}-${high.toFixed(2)}, `;
}

function makeBar() {
  document.getElementById("precision-name").textContent = precisionName;
  const input = document.getElementById("threshold");
  input.min = data.histogram.low;
  input.max = data.histogram.high;
  input.step = STEP;
  input.addEventListener("change", () => { if (input.value !== "") setScore(Number(input.value)); });
  document.getElementById("reset").addEventListener("click", setOwn);
  document.getElementById("reset").title = `Back to ${own.name}`;
  const view = () => {
    segments(document.getElementById("weight"), "weight", WEIGHTS.map((weight) => [weight, weight === "bytes" ? "text" : weight]),
      state.weight, (value) => { state.weight = value; changed("view"); changed("threshold"); });
    segments(document.getElementById("scale"), "scale", [["linear", "linear"], ["log", "log"]],
      state.scale, (value) => { state.scale = value; changed("view"); });
  };
  view();
  document.getElementById("expected-figure").hidden = !data.expected;
  document.getElementById("expected-figure").title = data.expected ? `${precisionName}: from ${data.expected.source}.` : "";
  const draw = () => {
    if (document.activeElement !== input || Number(input.value) !== score()) input.value = said(score());
    for (const weight of WEIGHTS) {
      const kept = keptOf(weight);
      document.getElementById(`kept-${weight}`).textContent = weight === "documents" ? whole(kept) : amount(kept, weight);
      document.getElementById(`kept-${weight}`).dataset.value = kept;
      document.getElementById(`share-${weight}`).textContent = `${percent(kept, totals[weight])} of ${amount(totals[weight], weight)}`;
    }
    if (data.expected) {
      const precision = expectedAt("precision"), recall = expectedAt("recall");
      document.getElementById("precision").textContent = precision === null ? "-" : precision.toFixed(2);
      document.getElementById("recall").textContent = recall === null ? "" : `${interval()}recall ${recall.toFixed(2)}`;
    }
  };
  on("threshold", draw);
  draw();
}

// The lowest border at which what is kept still fits the budget; exact up to the next border.
function solve(rule, value) {
  if (rule === "min_score") return nearest(value);
  const weight = rule === "tokens" ? "tokens" : "documents";
  const budget = rule === "tokens" ? value : Math.floor((value / 100) * totals.documents + 1e-6);
  let at = above[weight].findIndex((kept) => kept <= budget);
  while (at > 0 && above[weight][at - 1] === above[weight][at] && above.documents[at - 1] === above.documents[at]) at--;
  return at;
}

function makeSolver() {
  const part = section("solver", "Solver", "From a budget to a threshold: the lowest one, in steps of " + STEP.toFixed(DIGITS) + ", at which what is kept still fits.");
  const rule = make("select", { id: "rule" }, [["fraction", "share of documents, %"], ["tokens", "token budget"], ["min_score", "score at least"]]
    .map(([value, label]) => make("option", { value }, label)));
  const input = make("input", { id: "budget", type: "text", inputmode: "decimal", value: "10", size: 12, autocomplete: "off" });
  const answer = make("p", { id: "answer", role: "status" }), code = make("pre", { id: "keep-config", tabindex: 0 });
  const use = make("button", { type: "button", id: "use" }, "Use this threshold");
  let found = null;
  const units = { k: 1e3, m: 1e6, b: 1e9, g: 1e9, t: 1e12 };
  const read = () => {
    const match = /^\s*([0-9][0-9,_\s]*\.?[0-9]*(?:e[+]?[0-9]+)?)\s*([kmbgt%]?)\s*$/i.exec(input.value);
    if (!match) return NaN;
    return Number(match[1].replace(/[,_\s]/g, "")) * (units[match[2].toLowerCase()] || 1);
  };
  const draw = () => {
    const value = read();
    found = Number.isFinite(value) ? solve(rule.value, value) : null;
    use.disabled = found === null;
    if (found === null) {
      answer.textContent = "Type a number such as 10, 250000, 1.3e12 or 1.3T.";
      code.textContent = "";
      return;
    }
    const below = found > 0 ? ` One step lower, ${said(border(found - 1))}, keeps ${whole(above.documents[found - 1])} documents and ${compact(above.tokens[found - 1])} tokens.` : "";
    const goal = rule.value === "fraction" ? `fraction=${Number((value / 100).toPrecision(10))}` : `${rule.value}=${value}`;
    answer.textContent = `Score at least ${said(border(found))} keeps ${whole(above.documents[found])} documents (${percent(above.documents[found], totals.documents)}) ` +
      `and ${compact(above.tokens[found])} tokens (${percent(above.tokens[found], totals.tokens)}).${below}`;
    code.textContent = `keep: {min_score: ${said(border(found))}}          # in the config\n` +
      `finesieve inspect ${data.run.command} --keep ${goal}   # to the last document, with the tie it cuts`;
  };
  rule.addEventListener("change", () => {
    input.value = { fraction: "10", tokens: String(Math.round(totals.tokens / 10)), min_score: said(score()) }[rule.value];
    draw();
  });
  input.addEventListener("input", draw);
  use.addEventListener("click", () => { if (found !== null) setBorder(found); });
  part.append(make("div", { class: "tools" }, make("div", {}, make("label", { for: "rule" }, "keep"), make("br"), rule),
    make("div", {}, make("label", { for: "budget" }, "value"), make("br"), input), use), answer, code);
  draw();

  const holder = make("div", {});
  part.append(make("h3", {}, "What other thresholds keep"), holder);
  const columns = ["score at least", "documents", "share", "tokens", "share", "text", "mean score"];
  if (data.expected) columns.push(precisionName, "recall");
  const sums = fromTop(dense({ first: data.histogram.first, sums: data.histogram.score_sums }, "sums"));
  const table_ = () => {
    const borders = [...new Set([...data.thresholds.map(nearest), state.at])].sort((a, b) => a - b);
    const rows = borders.map((i) => [
      make("button", { type: "button", onclick: () => setBorder(i) }, said(border(i))),
      whole(above.documents[i]), percent(above.documents[i], totals.documents),
      compact(above.tokens[i]), percent(above.tokens[i], totals.tokens), size(above.bytes[i]),
      above.documents[i] ? (sums[i] / above.documents[i]).toFixed(2) : "-",
      ...(data.expected ? ["precision", "recall"].map((kind) => {
        const value = data.expected[kind][i];
        return value === undefined || value === null ? "-" : value.toFixed(2);
      }) : []),
    ]);
    put(holder, table(columns, rows, { now: borders.indexOf(state.at), label: "What other thresholds keep" }));
  };
  let later = 0;
  on("threshold", () => { clearTimeout(later); later = setTimeout(table_, 150); });
  table_();
}

function makeLedger() {
  const total = data.ledger.total;
  const part = section("ledger", "What became of every record", `${whole(total.records)} in = ${whole(total.kept)} kept + ${whole(total.removed)} removed + ${whole(total.quarantined)} quarantined.`, { short: "Ledger" });
  const rows = [["kept", total.kept, "kept"], ...data.ledger.reasons];
  const holder = make("figure", { "aria-label": "Records by what became of them" });
  const draw = () => {
    const width = holder.clientWidth || 900, left = Math.min(210, width * 0.4), inner = Math.max(60, width - left - 130), tall = 27;
    const most = d3.max(rows, (row) => row[1]) || 1;
    const x = (state.scale === "log" ? logScale(most) : d3.scaleLinear().domain([0, most])).range([0, inner]);
    const long = (row) => (row[1] ? Math.max(1, x(row[1])) : 0);
    const y = d3.scaleBand().domain(d3.range(rows.length)).range([0, rows.length * tall]).padding(0.25);
    const svg = d3.create("svg").attr("viewBox", `0 0 ${width} ${rows.length * tall + 26}`).attr("height", rows.length * tall + 26);
    const plot = svg.append("g").attr("transform", `translate(${left},0)`);
    const axis = state.scale === "log" ? d3.axisBottom(x).tickValues([1, 100, 1e4, 1e6, 1e8, 1e10].filter((tick) => tick <= x.domain()[1])) : d3.axisBottom(x).ticks(Math.max(2, inner / 110));
    plot.append("g").attr("class", "axis").attr("transform", `translate(0,${rows.length * tall})`).call(axis.tickFormat(shortTicks("documents")));
    const groups = plot.selectAll(".reason").data(rows).enter().append("g").attr("transform", (row, i) => `translate(0,${y(i)})`);
    groups.append("rect").attr("class", (row) => row[2]).attr("height", y.bandwidth()).attr("width", long);
    groups.append("text").attr("x", -8).attr("y", y.bandwidth() / 2).attr("dy", ".35em").attr("text-anchor", "end")
      .text((row) => (row[0].length * 7.1 > left - 8 ? `${row[0].slice(0, Math.floor((left - 8) / 7.1) - 1)}…` : row[0])).append("title").text((row) => row[0]);
    groups.append("text").attr("x", (row) => long(row) + 6).attr("y", y.bandwidth() / 2).attr("dy", ".35em")
      .text((row) => `${compact(row[1])} (${percent(row[1], total.records)})`);
    put(holder, svg.node());
  };
  part.append(holder);
  for (const note of data.ledger.notes) part.append(make("p", { class: "muted" }, note));
  part.append(make("details", {}, make("summary", {}, `Input files (${whole(data.ledger.sources_total)})`),
    table(["input file", "records", "kept", "removed", "quarantined"], data.ledger.sources.map((row) => [foreign(row[0]), ...row.slice(1).map(whole)])),
    data.ledger.sources_total > data.ledger.sources.length ? make("p", { class: "muted" }, `The ${data.ledger.sources.length} with most records.`) : null));
  on("view", draw);
  new ResizeObserver(draw).observe(holder);
  draw();
}

function makeLineage() {
  const lineage = data.lineage;
  const part = section("lineage", "Lineage", "Where the run comes from, and what it holds.");
  part.append(table(["", ""], lineage.rows.map(([name, value]) => [name, foreign(value)]), { textColumns: [0, 1], label: "Lineage" }));
  part.append(make("details", {}, make("summary", {}, "Config"), make("pre", { tabindex: 0 }, lineage.config)));
  if (lineage.card) part.append(make("details", {}, make("summary", {}, "Model card"), make("pre", { tabindex: 0 }, lineage.card)));
  part.append(make("details", {}, make("summary", {}, `Files (${whole(lineage.files_total)})`),
    table(["file", "rows", "size", "sha256"], lineage.files.map((file) => [foreign(file[0]), file[1] === null ? "-" : whole(file[1]), size(file[2]), make("code", {}, file[3])]), { textColumns: [0, 3] })));
  put(document.getElementById("footer"), make("p", {}, `Made by finesieve ${data.run.finesieve} from the side files of the run. ` +
    `Nothing on this page is loaded from elsewhere. Charts: ${data.library}.`));
}

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

// Puts the page together.
makeHead(data.run.name, data.run.subtitle);
makeBar();
makeScores();
// The threshold can be dragged from here on; the other sections follow one by one, so that the page never stands still.
document.documentElement.dataset.usable = String(Math.round(performance.now()));
const sections = [makeSolver, makePairs, makeSlices, makeDocuments, makeDuplicates, makeLedger, makeTrust, makeLineage];
function next() {
  const making = sections.shift();
  if (making) { making(); setTimeout(next); return; }
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
  const asked = document.getElementById(location.hash.slice(1));
  if (asked) asked.scrollIntoView();
}
setTimeout(next);
