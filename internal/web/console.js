// Brings in what is new: when the agent tells of an event, and every 15 s for the numbers, of which no event tells.
// Without it the page is whole, and as old as its loading.
"use strict";
(() => {
  const live = document.getElementById("live");
  let due = 0;

  // A link that has the keyboard's focus keeps it. A selection is somebody's: nothing is taken from under it.
  async function renew() {
    due = 0;
    if (document.hidden || !document.getSelection().isCollapsed) return later(3000);
    try {
      const answer = await fetch(location.href, { signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const focus = document.activeElement && document.activeElement.getAttribute("href");
      for (const part of ["header", "main"]) {
        document.querySelector(part).replaceWith(document.adoptNode(fresh.querySelector(part)));
      }
      if (focus) document.querySelector(`a[href="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
      tell("This page keeps itself up to date.", "quiet");
    } catch {
      tell("The agent does not answer: what is shown here is old.", "bad");
    }
    later(15000);
  }

  function tell(text, kind) {
    if (live.textContent !== text) live.textContent = text;
    live.className = kind;
  }

  let at = 0;
  function later(wait) {
    const when = Date.now() + wait;
    if (due && at <= when) return;
    clearTimeout(due);
    [due, at] = [setTimeout(renew, wait), when];
  }

  const events = new EventSource("/api/v1/events");
  for (const kind of ["source", "change", "tip", "action", "reset"]) {
    events.addEventListener(kind, () => later(300));
  }
  later(1000);
})();
