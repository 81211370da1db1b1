// Heatmaps, drawn as the package draws them: the picture in dark grey, and heat added while it fades beneath.
const heat = bytes(HEAT);
const greys = new Map();

function loadPicture(uri) {
  return new Promise((done) => {
    const picture = new Image();
    picture.onload = () => done(picture);
    picture.onerror = () => done(null);
    picture.src = uri;
  });
}
async function greyOf(uri) {
  if (!greys.has(uri)) greys.set(uri, loadPicture(uri).then((picture) => {
    if (!picture) return null;
    const canvas = make("canvas", { width: picture.naturalWidth, height: picture.naturalHeight });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    const rgba = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const grey = new Float32Array(rgba.length / 4);
    for (let i = 0; i < grey.length; i++) grey[i] = 0.62 * (0.299 * rgba[4 * i] + 0.587 * rgba[4 * i + 1] + 0.114 * rgba[4 * i + 2]);
    return { grey, width: canvas.width, height: canvas.height };
  }));
  return greys.get(uri);
}

// The cells of a map in the picture of a sample, 0 to 1, bilinear between the middles of the cells. Slices that stand below
// each other are kept apart; of a signal the map is a band, and all around it nothing is drawn.
function enlarged(map, size, sample, picture) {
  const out = new Float32Array(picture.width * picture.height);
  if (!map || !map[1]) return out;
  const [left, top, right, bottom] = sample.band || [0, 0, picture.width, picture.height];
  const parts = sample.slices ? sample.slices.numbers.length : 1;
  const rows = size[0] / parts, columns = size[1], width = right - left, height = (bottom - top) / parts;
  const cells = bytes(map[0]);
  for (let part = 0; part < parts; part++) {
    const one = enlargedPart(cells.subarray(part * rows * columns, (part + 1) * rows * columns), rows, columns, width, height);
    for (let y = 0; y < height; y++) out.set(one.subarray(y * width, (y + 1) * width), (top + part * height + y) * picture.width + left);
  }
  return out;
}
function enlargedPart(cells, rows, columns, width, height) {
  const out = new Float32Array(width * height);
  const place = (i, from, to) => {
    const at = Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1), low = Math.floor(at);
    return [low, Math.min(low + 1, from - 1), at - low];
  };
  const across = Array.from({ length: width }, (_, x) => place(x, columns, width));
  for (let y = 0; y < height; y++) {
    const [top, bottom, down] = place(y, rows, height);
    for (let x = 0; x < width; x++) {
      const [left, right, over] = across[x];
      const above = cells[top * columns + left] * (1 - over) + cells[top * columns + right] * over;
      const below = cells[bottom * columns + left] * (1 - over) + cells[bottom * columns + right] * over;
      out[y * width + x] = (above * (1 - down) + below * down) / 255;
    }
  }
  return out;
}
function paint(canvas, picture, sample, color) {
  canvas.width = picture.width; canvas.height = picture.height;
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  const [left, top, right, bottom] = sample.band || [0, 0, picture.width, picture.height];
  for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) {
    const i = y * picture.width + x;
    color(i, picture.grey[i], image.data, 4 * i);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  if (sample.band) canvas.style.background = `url(${sample.image}) 0 0 / 100% 100%`;
}
async function paintHeat(canvas, sample, map, size) {
  const picture = await greyOf(sample.image);
  if (!picture) return;
  const values = enlarged(map, size, sample, picture), isThere = map && map[1];
  paint(canvas, picture, sample, (i, grey, out, at) => {
    const value = values[i], entry = 3 * Math.min(255, Math.floor(value * 256));
    const ground = Math.round(grey * (1 - 0.8 * value));
    for (let c = 0; c < 3; c++) out[at + c] = ground + (isThere ? heat[entry + c] : 0);
  });
}
// What came is orange, what went is blue; the picture stays dark grey where nothing changed.
async function paintDifference(canvas, sample, now, size, before, sizeBefore) {
  const picture = await greyOf(sample.image);
  if (!picture) return;
  const here = enlarged(now, size, sample, picture), there = enlarged(before, sizeBefore, sample, picture);
  paint(canvas, picture, sample, (i, grey, out, at) => {
    const change = here[i] - there[i], share = Math.abs(change);
    const color = change > 0 ? [255, 157, 60] : [74, 168, 255];
    for (let c = 0; c < 3; c++) out[at + c] = grey * (1 - share) + color[c] * share;
  });
}
// How far two maps differ, 0 to 1: the mean change of a cell, over the mean of both.
function change(now, before) {
  if (!now || !before) return 0;
  const here = now[1] ? bytes(now[0]) : null, there = before[1] ? bytes(before[0]) : null;
  if (!here || !there) return here || there ? 1 : 0;
  if (here.length !== there.length) return 1;
  let moved = 0, sum = 0;
  for (let i = 0; i < here.length; i++) { moved += Math.abs(here[i] - there[i]); sum += here[i] + there[i]; }
  return sum ? moved / sum : 0;
}
