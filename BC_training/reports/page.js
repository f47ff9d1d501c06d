// Tables that sort by a column: numbers as numbers, unknown ones last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], headings = [...table.tHead.rows[0].cells];
  const value = (row, c) => {
    const text = row.cells[c].textContent, digits = text.match(/\d+(?=\D*$)/);
    if (text === "–") return null;
    const number = Number(text.replace(/[,%]/g, ""));
    return c === 0 && digits ? Number(digits[0]) : Number.isNaN(number) ? text : number;
  };
  headings.forEach((heading, c) => heading.querySelector("button")?.addEventListener("click", () => {
    const order = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", order > 0 ? "ascending" : "descending");
    const compare = (a, b) => typeof a === typeof b && typeof a === "number" ? a - b : String(a).localeCompare(String(b));
    const keyed = [...body.rows].map((row) => [value(row, c), row]);
    keyed.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : order * compare(a, b));
    body.append(...keyed.map(([, row]) => row));
  }));
}

// For a check in a browser: how many pictures and videos came out, and that the script reached its end.
addEventListener("load", () => {
  const note = () => {
    const loaded = [...document.images].filter((image) => image.complete && image.naturalWidth > 0).length;
    const videos = [...document.querySelectorAll("video")], playable = videos.filter((video) => video.readyState >= 1);
    document.documentElement.dataset.images = `${loaded}/${document.images.length}`;
    document.documentElement.dataset.videos = `${playable.length}/${videos.length}`;
  };
  for (const video of document.querySelectorAll("video")) video.addEventListener("loadedmetadata", note);
  note();
  document.documentElement.dataset.ready = "true";
});
