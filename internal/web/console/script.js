// Brings in what is new without taking anything away: the page is fetched again and only what differs is changed, so that the
// focus, the place, what is typed, selected or unfolded stay. Without it every page is whole, and as old as its loading.
"use strict";
(() => {
  const steady = 15000; // ms between two looks when nothing is told: of new numbers no event tells
  const live = document.getElementById("live");
  let timer = 0, due = Infinity, asking = false, typed = 0;

  // morph makes one node like another of the same kind. What people did to it (typed, chose, unfolded) is no part of the other.
  function morph(node, like) {
    if (node.nodeType !== Node.ELEMENT_NODE) {
      if (node.data !== like.data) node.data = like.data;
      return;
    }
    for (const { name } of [...node.attributes]) {
      if (!like.hasAttribute(name) && name !== "open") node.removeAttribute(name);
    }
    for (const { name, value } of like.attributes) {
      if (name !== "open" && node.getAttribute(name) !== value) node.setAttribute(name, value);
    }
    if (node.nodeName === "INPUT" || node.nodeName === "TEXTAREA") return;
    if (node.nodeName === "SELECT" && node.options.length === like.options.length) return;
    children(node, like);
  }

  // children are matched by their id, and those without one by their kind and order.
  function children(node, like) {
    const named = new Map();
    for (const child of node.children) if (child.id) named.set(child.id, child);
    let at = node.firstChild;
    for (const fresh of [...like.childNodes]) {
      let match = fresh.id ? named.get(fresh.id) : null;
      if (!match && at && !fresh.id && !at.id && at.nodeName === fresh.nodeName) match = at;
      if (!match) {
        node.insertBefore(document.adoptNode(fresh), at);
        continue;
      }
      if (match === at) at = at.nextSibling;
      else node.insertBefore(match, at);
      morph(match, fresh);
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  async function renew() {
    due = Infinity;
    if (document.hidden || asking) return;
    if (Date.now() - typed < 1500 || !document.getSelection().isCollapsed) return later(2000);
    asking = true;
    try {
      const answer = await fetch(location.href, { signal: AbortSignal.timeout(10000) });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!fresh.getElementById("main") || answer.redirected) throw new Error("another page");
      const focus = document.activeElement;
      for (const id of ["side", "main"]) {
        fresh.getElementById("live")?.replaceWith(live.cloneNode(true));
        morph(document.getElementById(id), fresh.getElementById(id));
      }
      if (focus && focus !== document.activeElement && focus.isConnected) focus.focus({ preventScroll: true });
      if (document.title !== fresh.title) document.title = fresh.title;
      tell("Live", "");
      const again = fresh.querySelector('meta[http-equiv="refresh"]');
      later(again ? Math.max(1, Number(again.content)) * 1000 : steady);
    } catch {
      tell("No answer: what is shown is from " + (document.getElementById("main").dataset.now || "before").slice(11, 19), "lost");
      later(5000);
    } finally {
      asking = false;
    }
  }

  function tell(text, kind) {
    const now = document.getElementById("live");
    if (now.textContent !== text) now.textContent = text;
    now.className = "live on " + kind;
    document.documentElement.classList.toggle("lost", kind === "lost");
  }

  function later(wait) {
    const when = Date.now() + wait;
    if (when >= due) return;
    clearTimeout(timer);
    due = when;
    timer = setTimeout(renew, wait);
  }

  const events = new EventSource("/api/v1/events");
  for (const kind of ["source", "change", "tip", "action", "reset"]) {
    // Many pages hear of the same thing: they do not all ask at once.
    events.addEventListener(kind, () => later(300 + Math.random() * 700));
  }
  document.addEventListener("input", () => { typed = Date.now(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) later(100); });
  addEventListener("pageshow", (e) => { if (e.persisted) later(100); });

  // A filter that is chosen counts at once.
  document.addEventListener("change", (e) => {
    const form = e.target.closest("form.filters");
    if (form && e.target.nodeName === "SELECT") form.requestSubmit();
  });

  // Empty fields have no place in an address.
  document.addEventListener("submit", (e) => {
    if (e.target.method !== "get") return;
    for (const field of e.target.elements) if (field.name && !field.value) field.disabled = true;
    setTimeout(() => { for (const field of e.target.elements) field.disabled = false; });
  });

  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const field = e.target.closest("input, select, textarea, [contenteditable]");
    if (e.key === "Escape" && field) return field.blur();
    if (field) return;
    if (e.key === "/") {
      e.preventDefault();
      document.getElementById("q").focus();
    } else if (e.key === "j" || e.key === "k") {
      const rows = [...document.querySelectorAll("a.sum, tbody th a")];
      const to = rows.indexOf(document.activeElement) + (e.key === "j" ? 1 : -1);
      if (rows[Math.max(0, to)]) rows[Math.max(0, to)].focus();
    }
  });

  tell("Live", "");
  later(document.querySelector('meta[http-equiv="refresh"]') ? 1500 : steady / 3);
})();
