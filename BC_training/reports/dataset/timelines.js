// The timelines of a dataset's page.
const { names, axes, levels, episodes } = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const ROW = 14, AXIS = 18, AMOUNTS = 30, FULL = (levels.length - 1) / 2;

// "released,held,released,..." in columns to [[first, end], ...] held.
function runs(text, columns) {
  const found = [];
  if (!text) return found;
  const lengths = text.split(",").map(Number);
  if (lengths.length % 2) lengths.push(columns);
  for (let i = 0, at = 0; i < lengths.length; i += 2) {
    const first = at + lengths[i];
    at = Math.min(first + lengths[i + 1], columns);
    found.push([first, at]);
  }
  return found;
}
for (const episode of episodes) {
  episode.columns = Math.ceil(episode.length / episode.step);
  episode.held = episode.rows.map((row) => runs(row, episode.columns));
  episode.amounts = episode.axes.map((text) => Int8Array.from(text, (c) => levels.indexOf(c) - FULL));
}

function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name); }

// A context of the canvas in CSS pixels, sharp on any screen.
function prepare(canvas, height) {
  const width = canvas.clientWidth, scale = window.devicePixelRatio || 1;
  canvas.style.height = height + "px";
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  return [pen, width];
}

function shorten(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  while (text && pen.measureText(text + "…").width > width) text = text.slice(0, -1);
  return text + "…";
}

// A strip's held parts; each at least half a pixel, or a short press would vanish.
function strip(pen, held, left, top, pixels, height) {
  pen.fillStyle = colour("--accent");
  for (const [first, end] of held) pen.fillRect(left + first * pixels, top, Math.max((end - first) * pixels, 0.5), height);
}

// An axis's amounts around the middle of its strip; each at least half a pixel wide and high.
function amounts(pen, values, left, top, pixels, height) {
  const middle = top + height / 2;
  pen.fillStyle = colour("--line");
  pen.fillRect(left, middle - 0.5, values.length * pixels, 1);
  pen.fillStyle = colour("--accent");
  values.forEach((value, i) => {
    const tall = Math.max(Math.abs(value) / FULL * height / 2, 0.5);
    if (value) pen.fillRect(left + i * pixels, value > 0 ? middle - tall : middle, Math.max(pixels, 0.5), tall);
  });
}

function axis(pen, frames, fps, left, width, top) {
  const length = fps ? frames / fps : frames, unit = fps ? " s" : " frames";
  const rough = length / Math.max(2, width / 110), power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].find((s) => s * power >= rough) * power;
  if (!fps) step = Math.max(1, step);
  pen.fillStyle = colour("--soft");
  pen.textAlign = "center";
  for (let i = 0; i * step <= length; i++) {
    const x = left + (i * step / length) * width;
    pen.fillRect(x, top, 1, 4);
    const text = Number((i * step).toPrecision(6)).toLocaleString("en") + unit;
    const half = pen.measureText(text).width / 2;
    pen.fillText(text, Math.min(Math.max(x, left + half), left + width - half), top + 11);
  }
  pen.textAlign = "left";
}

function labelWidth(width) { return Math.min(130, width * 0.28); }

function drawEpisode(canvas) {
  const episode = episodes[canvas.dataset.episode];
  const below = names.length * ROW, bottom = below + axes.length * AMOUNTS;
  const [pen, width] = prepare(canvas, bottom + AXIS);
  const left = labelWidth(width), pixels = (width - left) * episode.step / episode.length;
  names.forEach((name, a) => {
    pen.fillStyle = colour("--soft");
    pen.fillText(shorten(pen, name, left - 8), 0, a * ROW + ROW / 2);
    pen.fillStyle = colour("--track");
    pen.fillRect(left, a * ROW + 1, width - left, ROW - 3);
    strip(pen, episode.held[a], left, a * ROW + 1, pixels, ROW - 3);
  });
  axes.forEach(({ name }, x) => {
    const top = below + x * AMOUNTS;
    pen.fillStyle = colour("--soft");
    pen.fillText(shorten(pen, name, left - 8), 0, top + AMOUNTS / 2);
    pen.fillStyle = colour("--track");
    pen.fillRect(left, top + 1, width - left, AMOUNTS - 3);
    amounts(pen, episode.amounts[x], left, top + 1, pixels, AMOUNTS - 3);
  });
  axis(pen, episode.length, episode.fps, left, width - left, bottom);
}

const overview = document.getElementById("overview"), choice = document.getElementById("action");
// Seconds where all rates are known, else frames.
const timed = episodes.every((e) => e.fps);
const span = (e) => (timed ? e.length / e.fps : e.length);
const longest = Math.max(...episodes.map(span));
const rowHeight = episodes.length > 40 ? 7 : axes.length ? 21 : 13;

function drawOverview() {
  const [pen, width] = prepare(overview, episodes.length * rowHeight + AXIS);
  const left = labelWidth(width), every = Math.ceil(12 / rowHeight);
  episodes.forEach((episode, i) => {
    const wide = (width - left) * span(episode) / longest;
    pen.fillStyle = colour("--soft");
    if (i % every === 0) pen.fillText(shorten(pen, episode.name, left - 8), 0, (i + 0.5) * rowHeight);
    pen.fillStyle = colour("--track");
    pen.fillRect(left, i * rowHeight, wide, rowHeight - 1.5);
    const place = [left, i * rowHeight, wide * episode.step / episode.length, rowHeight - 1.5];
    const chosen = choice.selectedIndex;
    if (chosen < names.length) strip(pen, episode.held[chosen], ...place);
    else amounts(pen, episode.amounts[chosen - names.length], ...place);
  });
  axis(pen, longest, timed ? 1 : 0, left, width - left, episodes.length * rowHeight);
}

function describe(episode, column) {
  const first = column * episode.step, last = Math.min(first + episode.step, episode.length) - 1;
  const held = names.filter((_, a) => episode.held[a].some(([from, end]) => from <= column && column < end));
  axes.forEach(({ name, scale }, x) => {
    const part = episode.amounts[x][column] / FULL;
    if (part) held.push(`${name} about ${Number((part * scale).toPrecision(2))}`);
  });
  const frames = first === last ? `frame ${first.toLocaleString("en")}` : `frames ${first.toLocaleString("en")} to ${last.toLocaleString("en")}`;
  const time = episode.fps ? ` · ${(first / episode.fps).toFixed(2)} s` : "";
  return `${episode.name} · ${frames}${time} · ${held.join(", ") || "nothing held"}`;
}

function point(canvas, event) {
  const box = canvas.getBoundingClientRect(), left = labelWidth(box.width);
  let episode, wide = box.width - left;
  if (canvas === overview) {
    episode = episodes[Math.floor((event.clientY - box.top) / rowHeight)];
    if (episode) wide *= span(episode) / longest;
  } else episode = episodes[canvas.dataset.episode];
  const column = episode ? Math.floor((event.clientX - box.left - left) / wide * episode.length / episode.step) : -1;
  tip.hidden = !(column >= 0 && column < episode.columns);
  if (tip.hidden) return;
  tip.textContent = describe(episode, column);
  tip.style.left = Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = (event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18) + "px";
}

const strips = [...document.querySelectorAll("canvas[data-episode]")];
function drawAll() {
  drawOverview();
  for (const canvas of strips) if (canvas.parentElement.open) drawEpisode(canvas);
}
for (const canvas of [...strips, overview]) {
  canvas.addEventListener("pointermove", (event) => point(canvas, event));
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
}
for (const canvas of strips) canvas.parentElement.addEventListener("toggle", () => { if (canvas.parentElement.open) drawEpisode(canvas); });
choice.addEventListener("change", drawOverview);
document.getElementById("open").addEventListener("click", () => strips.forEach((canvas) => { canvas.parentElement.open = true; }));
document.getElementById("close").addEventListener("click", () => strips.forEach((canvas) => { canvas.parentElement.open = false; }));
let drawnWidth = 0;
new ResizeObserver(() => {
  if (overview.clientWidth === drawnWidth) return;
  drawnWidth = overview.clientWidth;
  requestAnimationFrame(drawAll); // drawing sets heights, which an observer must not
}).observe(overview);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

addEventListener("load", drawAll);
