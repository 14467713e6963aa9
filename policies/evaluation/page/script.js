"use strict";
(() => {
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

  // Commands can be copied: where the clipboard is closed to a page from a file, the text is selected.
  for (const button of all("button.copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "copied";
        setTimeout(() => { button.textContent = "copy"; }, 1500);
      } catch {
        getSelection().selectAllChildren(code);
      }
    });
  }

  // A run that is pointed at, in a table or on a map, stands out everywhere.
  let pinned = null;
  const choose = (run) => {
    for (const map of all("svg.map")) map.classList.toggle("chosen", run !== null);
    for (const item of all("[data-run]")) item.classList.toggle("on", item.dataset.run === run);
  };
  for (const item of all("[data-run]")) {
    item.addEventListener("mouseenter", () => choose(item.dataset.run));
    item.addEventListener("mouseleave", () => choose(pinned));
    item.addEventListener("click", (event) => {
      if (event.target.closest("code, button")) return;
      pinned = pinned === item.dataset.run ? null : item.dataset.run;
      choose(pinned);
    });
  }

  // The runs again, all at once: a path's points lie a fixed time apart, and each line begins where the last one ended.
  const player = document.querySelector(".player");
  const period = Number(player.dataset.period);
  const robots = [];
  for (const run of all("svg.map .run")) {
    const points = [];
    for (const line of all("polyline", run)) {
      const own = line.getAttribute("points").split(" ").map((pair) => pair.split(",").map(Number));
      points.push(...(points.length ? own.slice(1) : own));
    }
    if (!points.length) continue;
    const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    circle.setAttribute("r", "6");
    circle.setAttribute("class", run.dataset.failed ? "robot failed" : "robot");
    circle.style.display = "none";
    run.parentElement.append(circle);
    robots.push({ points, circle });
  }
  const longest = Math.max(0, ...robots.map((robot) => (robot.points.length - 1) * period));
  const slider = player.querySelector("input"), button = player.querySelector("button");
  const clock = player.querySelector("output");
  slider.max = String(longest);
  let shown = 0, last = null;
  const show = (seconds) => {
    shown = seconds;
    slider.value = String(seconds);
    clock.textContent = `${seconds.toFixed(1)} s`;
    for (const map of all("svg.map")) map.classList.toggle("playing", seconds > 0);
    for (const { points, circle } of robots) {
      const place = Math.min(seconds / period, points.length - 1), before = Math.floor(place);
      const a = points[before], b = points[Math.min(before + 1, points.length - 1)], share = place - before;
      circle.style.display = seconds > 0 ? "" : "none";
      circle.setAttribute("cx", a[0] + share * (b[0] - a[0]));
      circle.setAttribute("cy", a[1] + share * (b[1] - a[1]));
    }
  };
  const tick = (now) => {
    if (last === null) return;
    const next = shown + (now - last) / 1000;
    last = now;
    if (next >= longest) return stop(0);
    show(next);
    requestAnimationFrame(tick);
  };
  const stop = (seconds) => { last = null; button.textContent = "play"; show(seconds); };
  button.addEventListener("click", () => {
    if (last !== null) return stop(shown);
    button.textContent = "pause";
    last = performance.now();
    requestAnimationFrame(tick);
  });
  slider.addEventListener("input", () => stop(Number(slider.value)));
  player.hidden = longest === 0;
  document.documentElement.dataset.ready = String(robots.length);
})();
