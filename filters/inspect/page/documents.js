// Documents: around the threshold, by score, by words; and duplicate clusters with their members side by side.
const documents = data.samples.items;

// Lines that more than one sampled document has: boilerplate, or a copy the deduplication did not call one.
const lineKey = (line) => line.trim().toLowerCase().replace(/\s+/g, " ");
const linesSeen = new Map();
for (const item of documents) {
  for (const key of new Set((item.text || "").split("\n").map(lineKey))) {
    if (key.length >= 30) linesSeen.set(key, (linesSeen.get(key) || 0) + 1);
  }
}

function markWords(text, words) {
  if (!words.length) return [text];
  const low = text.toLowerCase(), parts = [];
  if (low.length !== text.length) return [text];
  let from = 0;
  while (from < text.length) {
    let next = -1, length = 0;
    for (const word of words) {
      const found = low.indexOf(word, from);
      if (found >= 0 && (next < 0 || found < next)) { next = found; length = word.length; }
    }
    if (next < 0) break;
    parts.push(text.slice(from, next), make("mark", {}, text.slice(next, next + length)));
    from = next + length;
  }
  parts.push(text.slice(from));
  return parts;
}

function textOf(item, words = []) {
  if (item.text === null) return make("p", { class: "muted" }, item.missing || data.samples.missing);
  const lines = item.text.split("\n"), parts = [];
  lines.forEach((line, i) => {
    const others = (linesSeen.get(lineKey(line)) || 1) - 1;
    const marked = markWords(line, words);
    parts.push(...(others ? [make("span", { class: "shared", title: `this line is in ${many(others, "other sample")}` }, marked)] : marked));
    if (i < lines.length - 1) parts.push("\n");
  });
  if (item.cut) parts.push(" […]");
  return make("p", { class: "foreign text", dir: "auto" }, parts);
}

function documentCard(item, { words = [], heading = null, body = null } = {}) {
  const kept = item.reason === null;
  const head = make("header", {}, make("b", { class: "number" }, item.score === null ? "no score" : item.score.toFixed(3)),
    make("span", { class: `badge ${kept ? "keep" : ""}` }, heading || (kept ? "kept by the run" : item.reason.replaceAll("_", " "))),
    item.language ? foreign(item.language) : null,
    item.tokens === null ? null : make("span", {}, `${whole(item.tokens)} tokens`),
    item.copies > 1 ? copies(item) : null,
    foreign(item.origin, "span", { class: "origin" }));
  const card = make("article", { class: "document" }, head, body || textOf(item, words));
  if (item.text && item.text.length > 420 && !body) {
    card.append(make("button", { type: "button", "aria-expanded": "false", onclick: (event) => {
      const open = card.classList.toggle("open");
      event.target.setAttribute("aria-expanded", String(open));
      event.target.textContent = open ? "less" : "more";
    } }, "more"));
  }
  return card;
}

let openCluster = () => {};
function copies(item) {
  const label = `cluster of ${whole(item.copies)}`;
  const known = data.clusters.items.findIndex((cluster) => cluster.root === item.cluster);
  if (known < 0) return make("span", { class: "badge" }, label);
  return make("button", { type: "button", class: "badge", onclick: () => {
    openCluster(known);
    document.getElementById("duplicates").scrollIntoView();
  } }, label);
}

function makeDocuments() {
  const part = section("documents", "Documents", data.samples.note);
  if (!documents.length) { part.append(make("p", {}, "No document has a score.")); return; }
  const sorted = [...documents].sort((a, b) => a.score - b.score);
  const step = Number(data.samples.bucket), low = data.histogram.low;
  const bucketOf = (value) => clamp(Math.floor((value - low) / step + 1e-6), 0, Math.round((data.histogram.high - low) / step) - 1);
  const search = make("input", { type: "search", id: "search", placeholder: "words in the text, the address or the reason" });
  const bucket = make("select", { id: "bucket" }, make("option", { value: "" }, "around the threshold"));
  for (const number of [...new Set(sorted.map((item) => bucketOf(item.score)))]) {
    const from = low + number * step, first = nearest(from), last = nearest(from + step);
    const all = above.documents[first] - above.documents[last];
    const some = sorted.filter((item) => bucketOf(item.score) === number).length;
    bucket.append(make("option", { value: number }, `${from.toFixed(2)} to ${(from + step).toFixed(2)}: ${some} of ${compact(all)}`));
  }
  const status = make("p", { class: "muted", role: "status" }), results = make("div", { class: "documents", id: "results" });
  part.append(make("div", { class: "tools" },
    make("div", {}, make("label", { for: "search" }, "search the samples"), make("br"), search),
    make("div", {}, make("label", { for: "bucket" }, "scores"), make("br"), bucket)), status, results);
  const haystacks = new Map(documents.map((item) => [item,
    `${item.text || ""}\n${item.origin}\n${item.reason || "kept"}\n${item.language || ""}`.toLowerCase()]));
  const wordsOf = () => [...new Set(search.value.toLowerCase().split(/\s+/).filter(Boolean))];

  function around() {
    const at = score(), split = sorted.findIndex((item) => item.score >= at);
    const first = split < 0 ? sorted.length : split;
    const sides = [["Just below: dropped", sorted.slice(Math.max(0, first - 5), first).reverse()],
      ["Just above: kept", sorted.slice(first, first + 5)]];
    status.textContent = `The samples nearest to ${said(at)}. Shaded lines are in other samples too.`;
    put(results, sides.map(([title, items]) => make("div", {}, make("h3", {}, title),
      items.length ? items.map((item) => documentCard(item)) : make("p", { class: "muted" }, "None."))));
  }

  function draw() {
    const words = wordsOf();
    if (!words.length && bucket.value === "") { around(); return; }
    const found = sorted.filter((item) => (bucket.value === "" || bucketOf(item.score) === Number(bucket.value)) &&
      words.every((word) => haystacks.get(item).includes(word))).reverse();
    const shown = found.slice(0, 40), half = Math.ceil(shown.length / 2);
    status.textContent = `${many(found.length, "document")} of ${whole(documents.length)} sampled` +
      (found.length > shown.length ? `; the ${shown.length} with the highest scores are shown.` : ".");
    put(results, [shown.slice(0, half), shown.slice(half)].map((items) => make("div", {}, items.map((item) => documentCard(item, { words })))));
  }
  let later = 0;
  search.addEventListener("input", () => { clearTimeout(later); later = setTimeout(draw, 120); });
  bucket.addEventListener("change", draw);
  on("threshold", () => {
    if (search.value.trim() || bucket.value !== "") return;
    clearTimeout(later);
    later = setTimeout(draw, 150);
  });
  draw();
}

// Word differences: longest common subsequence after cutting what both begin and end with. White space is all alike.
const same = (one, other) => one === other || !(one.trim() || other.trim());
function differences(first, second) {
  const limit = 900, words = (text) => (text.match(/\s+|[^\s]+/g) || []).slice(0, 2 * limit);
  const a = words(first), b = words(second);
  let start = 0, end = 0;
  while (start < a.length && start < b.length && same(a[start], b[start])) start++;
  while (end < a.length - start && end < b.length - start && same(a[a.length - 1 - end], b[b.length - 1 - end])) end++;
  const x = a.slice(start, a.length - end), y = b.slice(start, b.length - end), wide = y.length + 1;
  const lengths = new Uint16Array((x.length + 1) * wide);
  for (let i = x.length - 1; i >= 0; i--) {
    for (let j = y.length - 1; j >= 0; j--) {
      lengths[i * wide + j] = same(x[i], y[j]) ? lengths[(i + 1) * wide + j + 1] + 1
        : Math.max(lengths[(i + 1) * wide + j], lengths[i * wide + j + 1]);
    }
  }
  const left = [[false, a.slice(0, start)]], right = [[false, b.slice(0, start)]];
  const add = (side, changed, word) => {
    const last = side[side.length - 1];
    if (last[0] === changed) last[1].push(word); else side.push([changed, [word]]);
  };
  let i = 0, j = 0;
  while (i < x.length || j < y.length) {
    if (i < x.length && j < y.length && same(x[i], y[j])) { add(left, false, x[i++]); add(right, false, y[j++]); }
    else if (j >= y.length || (i < x.length && lengths[(i + 1) * wide + j] >= lengths[i * wide + j + 1])) add(left, true, x[i++]);
    else add(right, true, y[j++]);
  }
  add(left, false, a.slice(a.length - end).join(""));
  add(right, false, b.slice(b.length - end).join(""));
  const paint = (side, name) => side.map(([changed, some]) => (changed ? make(name, {}, some.join("")) : some.join("")));
  const changedWords = (side) => d3.sum(side.filter(([changed]) => changed), ([, some]) => some.filter((word) => word.trim()).length);
  return { left: paint(left, "del"), right: paint(right, "ins"), changed: changedWords(left) + changedWords(right) };
}

function makeDuplicates() {
  const clusters = data.clusters;
  const part = section("duplicates", "Duplicates", clusters.note);
  if (!clusters.total) { part.append(make("p", {}, "No copies were found.")); return; }
  const sizes = make("figure", { "aria-label": "Clusters by size" });
  part.append(make("h3", {}, "Clusters by size"), sizes, make("h3", {}, "The survivor and its copies, side by side"));
  const drawSizes = () => {
    const width = sizes.clientWidth || 900, inner = width - MARGIN.left - MARGIN.right, height = 110;
    const x = d3.scaleBand().domain(clusters.sizes.map((row) => row.label)).range([0, inner]).padding(0.2);
    const y = logScale(d3.max(clusters.sizes, (row) => row.clusters)).range([height, 0]);
    const svg = d3.create("svg").attr("viewBox", `0 0 ${width} ${height + 48}`).attr("height", height + 48);
    const plot = svg.append("g").attr("transform", `translate(${MARGIN.left},18)`);
    plot.append("g").attr("class", "axis").call(d3.axisLeft(y).ticks(3, shortTicks("documents")));
    plot.append("g").attr("class", "axis").attr("transform", `translate(0,${height})`).call(d3.axisBottom(x).tickSizeOuter(0));
    const bars = plot.selectAll(".bar-of").data(clusters.sizes).enter().append("g");
    bars.append("rect").attr("class", "kept").attr("x", (row) => x(row.label) + Math.max(0, x.bandwidth() - 90) / 2).attr("width", Math.min(90, x.bandwidth()))
      .attr("y", (row) => (row.clusters ? y(row.clusters) : height)).attr("height", (row) => (row.clusters ? height - y(row.clusters) : 0));
    bars.append("text").attr("text-anchor", "middle").attr("x", (row) => x(row.label) + x.bandwidth() / 2)
      .attr("y", (row) => (row.clusters ? y(row.clusters) : height) - 5).text((row) => compact(row.clusters));
    put(sizes, svg.node(), make("figcaption", {}, "Clusters (log scale) by how many documents they hold, the survivor included."));
  };
  const list = make("ul", { class: "list" }), shown = make("div", {});
  part.append(make("div", { class: "clusters" }, list, shown));
  openCluster = (number) => {
    const cluster = clusters.items[number];
    list.querySelectorAll("button").forEach((button, i) => button.setAttribute("aria-pressed", String(i === number)));
    const [survivor, ...others] = cluster.members;
    put(shown, make("p", { class: "muted" }, `${many(cluster.size, "document")} in this cluster, ${cluster.kind}` +
      (cluster.size > cluster.members.length ? `; ${cluster.members.length} are shown.` : ".")),
    others.map((member) => {
      const both = survivor.text !== null && member.text !== null ? differences(survivor.text, member.text) : null;
      const side = (item, parts, heading) => documentCard(item, { heading,
        body: both ? make("p", { class: "foreign text", dir: "auto", tabindex: 0 }, parts, item.cut ? " […]" : "") : textOf(item) });
      return make("div", {}, both ? make("p", { class: "muted" }, both.changed
        ? `${many(both.changed, "word")} differ${both.changed === 1 ? "s" : ""} in what is shown.` : "Equal word for word in what is shown.") : null,
      make("div", { class: "pair" }, side(survivor, both && both.left, "survivor"), side(member, both && both.right, member.reason ? null : "copy")));
    }));
  };
  put(list, clusters.items.map((cluster, i) => make("li", {}, make("button", { type: "button", "aria-pressed": "false", onclick: () => openCluster(i) },
    `${many(cluster.size, "document")}, ${cluster.kind}`, foreign(cluster.members[0].origin, "small")))));
  on("view", drawSizes);
  new ResizeObserver(drawSizes).observe(sizes);
  drawSizes();
  if (clusters.items.length) openCluster(0);
}
