// Puts the page together.
makeHead(data.run.name, data.run.subtitle);
makeBar();
makeScores();
// The threshold can be dragged from here on; the other sections follow one by one, so that the page never stands still.
document.documentElement.dataset.usable = String(Math.round(performance.now()));
const sections = [makeSolver, makeSlices, makeDocuments, makeDuplicates, makeLedger, makeTrust, makeLineage];
function next() {
  const making = sections.shift();
  if (making) { making(); setTimeout(next); return; }
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
  const asked = document.getElementById(location.hash.slice(1));
  if (asked) asked.scrollIntoView();
}
setTimeout(next);
