// The page as a whole: what is chosen, by mouse, touch and keyboard, and what follows from it.
function show() {
  const now = look();
  $("slider").max = Math.max(looks().length - 1, 0);
  $("slider").value = state.look;
  $("slider").disabled = looks().length < 2;
  const where = now ? `look ${state.look + 1} of ${looks().length} · step ${number(now.step)}${now.epoch === undefined ? "" : ` · epoch ${now.epoch}`}` : "no look yet";
  $("where").textContent = DATA.runs.length > 1 ? `${run().name} · ${where}` : where;
  $("slider").setAttribute("aria-valuetext", where);
  $("how-label").hidden = !(now && now.samples && state.against !== "none");
  showNumbers();
  showFollows();
  markCharts();
  if (!now) { $("count").textContent = "No look yet: reload this page after the first validation."; $("cards").replaceChildren(); }
  else if (!now.samples) showWholes();
  else if (!state.order) arrange();
  else showCards();
  $("tools").hidden = document.querySelector(".legend").hidden = !(now && now.samples);
  remember();
}
function goTo(index) {
  state.look = Math.min(Math.max(index, 0), Math.max(looks().length - 1, 0));
  show();
}
function chooseMonitor(index) {
  state.monitor = index; state.look = Math.max(looks().length - 1, 0); state.order = null;
  if (!isThere(state.against) || state.against.startsWith("look:")) state.against = anotherRun();
  prepareChoices();
  showCharts();
  show();
}
function prepareChoices() {
  const others = DATA.runs.map((one, i) => [`run:${i}`, `run ${one.name}`]).filter((_, i) => i !== state.run);
  options($("against"), [["none", "nothing"], ...others, ["first", "the first look"], ["previous", "the look before"], ...looks().map((each, i) => [`look:${i}`, `step ${number(each.step)}`])], state.against);
  const all = DATA.runs.flatMap((one, r) => one.monitors.map((each, m) => [`${r}:${m}`, DATA.runs.length > 1 ? `${one.name} · ${each.prefix}` : each.prefix]));
  options($("monitor"), all, `${state.run}:${state.monitor}`);
  $("monitor-label").hidden = all.length < 2;
  prepareTools();
}
// A page that is written anew while it is watched opens where it was left; at the last look it follows.
function remember() {
  const kept = { against: state.against, monitor: state.monitor, run: state.run, look: state.look === looks().length - 1 ? -1 : state.look };
  history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(kept))}`);
}
// Anything may stand behind the #, and the page may have been built again with fewer runs or looks since.
function recall() {
  let kept = null;
  try { kept = JSON.parse(decodeURIComponent(location.hash.slice(1))); } catch { /* nothing of ours */ }
  const { run: r, monitor: m, look: at, against: other } = kept || NOTHING, isIndex = (all, index) => Number.isInteger(index) && index >= 0 && index < all.length;
  const isKept = isIndex(DATA.runs, r) && isIndex(DATA.runs[r].monitors, m);
  state.run = isKept ? r : Math.max(DATA.runs.findIndex((one) => one.monitors.some((each) => each.looks.length)), 0);
  state.monitor = isKept ? m : Math.max(run().monitors.findIndex((each) => each.looks.length), 0);
  state.look = isKept && isIndex(looks(), at) ? at : Math.max(looks().length - 1, 0);
  state.against = isKept && typeof other === "string" && isThere(other) ? other : anotherRun();
}
// A file may be opened where no storage is allowed; then nothing is kept, and all else works.
const stored = (name, value) => { try { if (value === undefined) return localStorage.getItem(name); localStorage.setItem(name, value); } catch { return null; } };

let playing = null;
function play(start) {
  clearInterval(playing);
  playing = start ? setInterval(() => (state.look < looks().length - 1 ? goTo(state.look + 1) : play(false)), 350) : null;
  $("play").setAttribute("aria-pressed", String(Boolean(playing)));
  $("play").textContent = playing ? "Pause" : "Play";
}
$("slider").addEventListener("input", (event) => goTo(Number(event.target.value)));
for (const [id, to] of [["first", () => 0], ["back", () => state.look - 1], ["forward", () => state.look + 1], ["last", () => looks().length - 1]]) $(id).addEventListener("click", () => goTo(to()));
$("play").addEventListener("click", () => { const start = !playing; if (start && state.look === looks().length - 1) goTo(0); play(start); });
document.addEventListener("keydown", (event) => {
  const busy = event.target.closest("select, input:not([type=checkbox]), textarea") || event.altKey || event.ctrlKey || event.metaKey;
  const to = { __proto__: null, ArrowLeft: state.look - 1, ArrowRight: state.look + 1, Home: 0, End: looks().length - 1 }[event.key];
  if (busy || to === undefined || event.target.closest(".scroll")) return;
  event.preventDefault();
  goTo(to);
});
$("against").addEventListener("change", (event) => { state.against = event.target.value; state.order = null; prepareTools(); showCharts(); show(); });
$("how").addEventListener("change", () => { prepareTools(); show(); });
$("monitor").addEventListener("change", (event) => { const [r, m] = event.target.value.split(":").map(Number); state.run = r; chooseMonitor(m); });
for (const id of ["sort", "class", "right"]) $(id).addEventListener("change", arrange);
for (const id of ["method", "outlines", "plain"]) $(id).addEventListener("change", () => { prepareTools(); show(); });
$("tools").addEventListener("submit", (event) => event.preventDefault());
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  stored("lightning-gcam-theme", document.documentElement.dataset.theme);
});
$("watch").addEventListener("change", (event) => stored("lightning-gcam-watch", event.target.checked ? "1" : ""));
setInterval(() => { if ($("watch").checked && !playing) location.reload(); }, 30000);

if (["light", "dark"].includes(stored("lightning-gcam-theme"))) document.documentElement.dataset.theme = stored("lightning-gcam-theme");
$("watch").checked = stored("lightning-gcam-watch") === "1";
recall();
showAlerts();
prepareChoices();
showCharts();
show();
document.documentElement.dataset.ready = "yes";
