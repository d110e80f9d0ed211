/* The explorer: one output of a deformable convolution, tap by tap.

   The arithmetic comes first and knows no page, so that a test can compare it with
   numbers that refdcn wrote; the drawing follows. No library, no request. */
"use strict";

const Refdcn = (() => {
  const tent = (t) => Math.max(0, 1 - Math.abs(t)); // Eq. (3)

  // The right-hand slope of tent(q - r), Eq. (4); q itself is compared.
  const slope = (q, r) => (r - 1 <= q && q < r) - (r <= q && q < r + 1);

  const clamp = (a, low, high) => Math.min(Math.max(a, low), high);

  /* Rules at the border. Each says where the position lies that is read, and whether
     a pixel outside counts as 0 or as the nearest one inside. */
  const RULES = {
    ours: {
      title: "zero outside, corner by corner (the definition)",
      place: (q) => q,
    },
    "zero below": {
      title: "an index under 0 reads 0, one past the last repeats it",
      place: (q, n) => Math.min(q, n - 1),
      none: (q) => q < 0,
    },
    replicate: {
      title: "the border repeated on all sides",
      place: (q, n) => clamp(q, 0, n - 1),
    },
    "half pixel": {
      title: "pixel centres at r + 1/2: everything half a pixel off",
      place: (q) => q - 0.5,
    },
  };

  // Eq. (2): the sample at (qy, qx), its four pixels and its slopes.
  function sample(image, qy, qx, rule = "ours") {
    const [H, W] = [image.length, image[0].length];
    const { place, none } = RULES[rule];
    const out = none && (none(qy) || none(qx));
    const [y, x] = [place(qy, H), place(qx, W)];
    // Where a rule holds the position still, the value has no slope.
    const moves = (q, n) => (out || place(q + 1e-6, n) === place(q, n) ? 0 : 1);
    const [my, mx] = [moves(qy, H), moves(qx, W)];
    const [top, left] = [Math.floor(y), Math.floor(x)];
    const corners = [];
    let [value, dy, dx] = [0, 0, 0];
    for (const r of [top, top + 1]) {
      for (const c of [left, left + 1]) {
        const inside = !out && 0 <= r && r < H && 0 <= c && c < W;
        const pixel = inside ? image[r][c] : 0;
        const [ty, tx] = [tent(y - r), tent(x - c)];
        corners.push({ r, c, ty, tx, weight: ty * tx, pixel, inside, out });
        value += ty * tx * pixel;
        dy += my * slope(y, r) * tx * pixel;
        dx += mx * ty * slope(x, c) * pixel;
      }
    }
    return { value, dy, dx, corners, y, x };
  }

  // Eq. (1) at output (u, v): every tap of every offset group, and their sum.
  function output(state, u = state.u, v = state.v) {
    const { images, weight, offset, mask, stride, padding, dilation, rule } = state;
    const K_w = weight[0][0].length;
    const taps = [];
    let y = 0;
    images.forEach((image, g) => {
      weight[g].flat().forEach((w, k) => {
        const [i, j] = [Math.floor(k / K_w), k % K_w];
        const rest = [
          stride * u - padding + dilation * i,
          stride * v - padding + dilation * j,
        ];
        const [dy, dx] = offset[g][k];
        const q = [rest[0] + dy, rest[1] + dx];
        const read = sample(image, q[0], q[1], rule);
        const m = g * weight[g].flat().length + k;
        const term = w * read.value * mask[g][k];
        taps.push({
          g, k, i, j, rest, q, w, dm: mask[g][k], read, term,
          channels: { dy: 2 * m, dx: 2 * m + 1, dm: m },
          grad: [w * mask[g][k] * read.dy, w * mask[g][k] * read.dx],
        });
        y += term;
      });
    });
    return { y, taps };
  }

  const outSize = (n, s) =>
    Math.floor((n + 2 * s.padding - s.dilation * 2 - 1) / s.stride) + 1;

  return { tent, slope, sample, output, outSize, RULES };
})();

if (typeof module !== "undefined") module.exports = Refdcn;

const RefdcnExplorer = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const CELL = 44;
  const MARGIN = 2; // pixels of frame that are drawn around the image
  const STEP = 0.25;

  const start = () => ({
    images: [
      [
        [1, 2, 4, 3, 0, 1, 2],
        [0, 3, 7, 8, 4, 1, 0],
        [2, 5, 9, 9, 6, 2, 1],
        [1, 4, 8, 7, 5, 3, 0],
        [0, 1, 3, 4, 2, 1, 1],
        [2, 0, 1, 2, 1, 0, 3],
      ],
      [
        [0, 1, 0, 2, 5, 6, 4],
        [1, 0, 2, 4, 8, 7, 3],
        [0, 2, 3, 6, 9, 5, 2],
        [3, 1, 2, 5, 7, 4, 1],
        [2, 2, 1, 3, 4, 2, 0],
        [1, 0, 0, 1, 2, 1, 1],
      ],
    ],
    weight: [
      [[1, 2, 1], [2, 4, 2], [1, 2, 1]],
      [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    ],
    offset: [0, 1].map(() => [
      [-1, -0.75], [-0.5, 0.25], [-0.75, 1], [0.25, -1.25], [0.25, 0.5],
      [0, 0.75], [0.5, -0.5], [1, 0.25], [0.75, 1.25],
    ]),
    mask: [0, 1].map(() => Array(9).fill(1)),
    groups: 1, stride: 1, padding: 1, dilation: 1, rule: "ours",
    u: 2, v: 2, g: 0, k: 4,
  });

  const used = (s) => ({
    ...s,
    images: s.images.slice(0, s.groups),
    weight: s.weight.slice(0, s.groups),
  });

  const text = (a) => String(Math.round(a * 1000) / 1000).replace("-", "\u2212");

  function make(tag, attributes = {}, content = "", space = "") {
    const node = space
      ? document.createElementNS(space, tag)
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      node.setAttribute(name, value);
    }
    if (content !== "") node.textContent = content;
    return node;
  }
  const draw = (tag, attributes, content) => make(tag, attributes, content, SVG);

  function mount(root) {
    const s = start();
    const svg = draw("svg", { role: "group", "aria-label": "image and taps" });
    const panel = make("div", { class: "explorer-panel" });
    const controls = make("form", { class: "explorer-controls" });
    const live = make("p", { class: "explorer-live", "aria-live": "polite" });
    root.replaceChildren(controls, svg, panel, live);

    const place = (q) => CELL * (q + MARGIN + 0.5);
    const current = () => s.g * 9 + s.k;

    function choose(label, name, options, parse = Number) {
      const holder = make("label", {}, label + " ");
      const select = make("select", { name });
      for (const [value, title] of options) {
        select.append(make("option", { value }, title));
      }
      select.value = s[name];
      select.addEventListener("change", () => {
        s[name] = parse(select.value);
        settle();
      });
      holder.append(select);
      controls.append(holder);
      return select;
    }
    const numbers = (...list) => list.map((n) => [n, String(n)]);
    choose("stride", "stride", numbers(1, 2, 3));
    choose("padding", "padding", numbers(0, 1, 2));
    choose("dilation", "dilation", numbers(1, 2));
    choose("offset groups", "groups", numbers(1, 2));
    const rules = Object.entries(Refdcn.RULES).map(([n, r]) => [n, r.title]);
    choose("border", "rule", rules, String);
    const button = (title, action) => {
      const node = make("button", { type: "button" }, title);
      node.addEventListener("click", () => { action(); settle(); });
      controls.append(node);
    };
    button("back to the grid", () => {
      s.offset.forEach((taps) => taps.forEach((dp) => dp.fill(0)));
      s.mask.forEach((taps) => taps.fill(1));
    });
    button("shake", () => {
      const quarter = () => Math.round((Math.random() * 5 - 2.5) * 4) / 4;
      s.offset.forEach((taps) => taps.forEach((dp, k) => {
        taps[k] = [quarter(), quarter()];
      }));
      s.mask.forEach((taps) => taps.forEach((_, k) => {
        taps[k] = Math.round(Math.random() * 4) / 4;
      }));
    });

    // Keeps what is chosen inside what there is, then draws.
    function settle() {
      const [H, W] = [s.images[0].length, s.images[0][0].length];
      s.u = Math.min(s.u, Refdcn.outSize(H, s) - 1);
      s.v = Math.min(s.v, Refdcn.outSize(W, s) - 1);
      s.g = Math.min(s.g, s.groups - 1);
      render();
    }

    function move(k, dy, dx) {
      const dp = s.offset[s.g][k];
      s.offset[s.g][k] = [dp[0] + dy, dp[1] + dx];
      s.k = k;
      render();
    }

    const KEYS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

    function onTapKey(event, k) {
      const way = KEYS[event.key];
      const step = event.shiftKey ? STEP / 5 : STEP;
      if (way) move(k, step * way[0], step * way[1]);
      else if (event.key === "+" || event.key === "-") {
        s.mask[s.g][k] += event.key === "+" ? STEP : -STEP;
        s.k = k;
        render();
      } else return;
      event.preventDefault();
    }

    function drag(event, tap) {
      s.k = tap.k;
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const at = (e) => [
        ((e.clientY - box.top) * scale) / CELL - MARGIN - 0.5,
        ((e.clientX - box.left) * scale) / CELL - MARGIN - 0.5,
      ];
      const moved = (e) => {
        const fine = e.shiftKey ? 20 : 4;
        const q = at(e).map((a) => Math.round(a * fine) / fine);
        s.offset[s.g][tap.k] = [q[0] - tap.rest[0], q[1] - tap.rest[1]];
        render();
      };
      const ended = () => {
        window.removeEventListener("pointermove", moved);
        window.removeEventListener("pointerup", ended);
        window.removeEventListener("pointercancel", ended);
      };
      window.addEventListener("pointermove", moved);
      window.addEventListener("pointerup", ended);
      window.addEventListener("pointercancel", ended);
      event.preventDefault();
      render();
    }

    function pixels(image, corners) {
      const [H, W] = [image.length, image[0].length];
      for (let r = -MARGIN; r < H + MARGIN; r++) {
        for (let c = -MARGIN; c < W + MARGIN; c++) {
          const inside = 0 <= r && r < H && 0 <= c && c < W;
          const corner = corners.find((p) => p.r === r && p.c === c && p.weight > 0);
          const names = ["pixel", inside ? "" : "outside", corner ? "read" : ""];
          const [x, y] = [place(c) - CELL / 2, place(r) - CELL / 2];
          const cell = draw("rect", {
            x, y, width: CELL, height: CELL, class: names.join(" ").trim(),
          });
          if (inside) cell.style.setProperty("--value", image[r][c] / 9);
          svg.append(cell);
          const shown = inside ? text(image[r][c]) : "0";
          svg.append(draw("text", { x: x + 4, y: y + 13, class: "number" }, shown));
          if (corner) {
            const share = { x: x + CELL - 4, y: y + CELL - 5, class: "share" };
            svg.append(draw("text", share, text(corner.weight)));
          }
        }
      }
    }

    function tapNode(tap) {
      const chosen = tap.k === s.k;
      const [x, y] = [place(tap.q[1]), place(tap.q[0])];
      svg.append(draw("line", {
        x1: place(tap.rest[1]), y1: place(tap.rest[0]), x2: x, y2: y, class: "moved",
      }));
      if (chosen) {
        const [gy, gx] = tap.grad.map((a) => 12 * Math.tanh(a / 8));
        svg.append(draw("line", {
          x1: x, y1: y, x2: x + 3 * gx, y2: y + 3 * gy, class: "gradient",
          "marker-end": "url(#explorer-arrow)",
        }));
      }
      const label = `tap ${tap.k}, row ${tap.i}, column ${tap.j}, at ` +
        `(${text(tap.q[0])}, ${text(tap.q[1])}), mask ${text(tap.dm)}`;
      const node = draw("g", {
        class: chosen ? "tap chosen" : "tap", tabindex: 0, role: "button",
        "aria-label": label, "data-k": tap.k,
      });
      node.append(draw("circle", { cx: x, cy: y, r: 11 }));
      node.append(draw("text", { x, y: y + 4 }, String(tap.k)));
      node.addEventListener("pointerdown", (e) => drag(e, tap));
      node.addEventListener("keydown", (e) => onTapKey(e, tap.k));
      node.addEventListener("focus", () => {
        if (s.k !== tap.k) { s.k = tap.k; render(); }
      });
      svg.append(node);
      return node;
    }

    function outputs() {
      const [H, W] = [s.images[0].length, s.images[0][0].length];
      const [h, w] = [Refdcn.outSize(H, s), Refdcn.outSize(W, s)];
      const table = make("table", { class: "explorer-output" });
      table.append(make("caption", {}, "output y: choose one"));
      for (let u = 0; u < h; u++) {
        const row = make("tr");
        for (let v = 0; v < w; v++) {
          const cell = make("td");
          const here = u === s.u && v === s.v;
          const node = make("button", {
            type: "button", "aria-pressed": here, "data-output": `${u},${v}`,
            "aria-label": `output row ${u}, column ${v}`,
          }, here ? "\u25cf" : "\u00b7");
          node.addEventListener("click", () => {
            [s.u, s.v] = [u, v];
            render();
          });
          cell.append(node);
          row.append(cell);
        }
        table.append(row);
      }
      return table;
    }

    function details(found) {
      const tap = found.taps[current()];
      const { read } = tap;
      const rows = read.corners.map((p) =>
        `<tr><td>(${text(p.r)}, ${text(p.c)})${p.inside ? "" : p.out ? " counts as 0" : " outside"}</td>` +
        `<td>${text(p.ty)}</td><td>${text(p.tx)}</td><td>${text(p.weight)}</td>` +
        `<td>${text(p.pixel)}</td></tr>`).join("");
      const holder = make("div", { class: "explorer-sample" });
      holder.innerHTML =
        `<p><b>Tap ${tap.k}</b>, row ${tap.i} and column ${tap.j} of the kernel: ` +
        `q = (${text(tap.rest[0])}, ${text(tap.rest[1])}) + ` +
        `(${text(tap.q[0] - tap.rest[0])}, ${text(tap.q[1] - tap.rest[1])}) = ` +
        `(${text(tap.q[0])}, ${text(tap.q[1])}). ` +
        `dy is offset channel ${tap.channels.dy}, dx ${tap.channels.dx}; ` +
        `dm is mask channel ${tap.channels.dm}.` +
        (read.y === tap.q[0] && read.x === tap.q[1] ? "" :
          ` By this rule it is read at (${text(read.y)}, ${text(read.x)}).`) + "</p>" +
        `<table><thead><tr><th>pixel</th><th>tent(q_y \u2212 r_y)</th>` +
        `<th>tent(q_x \u2212 r_x)</th><th>weight</th><th>x</th></tr></thead>` +
        `<tbody>${rows}</tbody></table>` +
        `<p>x(q) = ${text(read.value)}; slope ${text(read.dy)} along rows, ` +
        `${text(read.dx)} along columns. The arrow is d y / d offset = w dm slope = ` +
        `(${text(tap.grad[0])}, ${text(tap.grad[1])}).</p>`;
      holder.append(maskOf(tap), differs(tap));
      return holder;
    }

    function maskOf(tap) {
      const label = make("label", {}, "mask dm of this tap ");
      const slider = make("input", {
        type: "range", min: -1, max: 2, step: STEP, value: tap.dm, name: "mask",
      });
      slider.addEventListener("change", () => {
        s.mask[s.g][s.k] = Number(slider.value);
        render();
      });
      label.append(slider, ` ${text(tap.dm)}`);
      return label;
    }

    // What the chosen border rule changes.
    function differs() {
      if (s.rule === "ours") return "";
      const here = Refdcn.output(used(s)).y;
      const wanted = Refdcn.output({ ...used(s), rule: "ours" }).y;
      const said = here === wanted
        ? "With these taps the rule gives what the definition gives."
        : `With this rule y is ${text(here)}; the definition gives ${text(wanted)}.`;
      return make("p", { class: "explorer-differs" }, said);
    }

    function sum(found) {
      const terms = found.taps.map((t) =>
        `${text(t.w)}\u00b7${text(t.read.value)}\u00b7${text(t.dm)}`);
      const said = `y(${s.u}, ${s.v}) = \u03a3 w x(q) dm = ${terms.join(" + ")}`;
      return make("p", { class: "explorer-sum" }, `${said} = ${text(found.y)}`);
    }

    function groupChoice() {
      if (s.groups === 1) return "";
      const label = make("label", {}, "offset group and channel shown ");
      const select = make("select", { name: "g" });
      [0, 1].forEach((g) => select.append(make("option", { value: g }, String(g))));
      select.value = s.g;
      select.addEventListener("change", () => { s.g = Number(select.value); render(); });
      label.append(select);
      return label;
    }

    function render() {
      const held = document.activeElement;
      const focus = held && root.contains(held)
        ? held.getAttribute("data-k") && "k" || held.getAttribute("data-output") && "o"
        : "";
      const found = Refdcn.output(used(s));
      const image = s.images[s.g];
      const [H, W] = [image.length, image[0].length];
      const [h, w] = [CELL * (H + 2 * MARGIN), CELL * (W + 2 * MARGIN)];
      svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
      svg.replaceChildren();
      const marker = draw("marker", {
        id: "explorer-arrow", viewBox: "0 0 8 8", refX: 6, refY: 4,
        markerWidth: 6, markerHeight: 6, orient: "auto",
      });
      marker.append(draw("path", { d: "M0 0L8 4L0 8z" }));
      svg.append(marker);
      pixels(image, found.taps[current()].read.corners);
      const shown = found.taps.filter((t) => t.g === s.g);
      shown.sort((a, b) => (a.k === s.k) - (b.k === s.k));
      const nodes = shown.map(tapNode);
      panel.replaceChildren(groupChoice(), details(found), outputs(), sum(found));
      const tap = found.taps[current()];
      live.textContent = `Tap ${s.k} reads ${text(tap.read.value)} at ` +
        `(${text(tap.q[0])}, ${text(tap.q[1])}); y is ${text(found.y)}.`;
      if (focus === "k") nodes[nodes.length - 1].focus();
      if (focus === "o") panel.querySelector('[aria-pressed="true"]').focus();
    }
    controls.addEventListener("submit", (e) => e.preventDefault());
    settle();
    return { state: s, render };
  }

  return { mount, start };
})();

if (typeof document !== "undefined") {
  const begin = () => document.querySelectorAll("[data-refdcn-explorer]")
    .forEach((root) => RefdcnExplorer.mount(root));
  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", begin);
  } else begin();
}
