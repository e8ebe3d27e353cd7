// Fetches the page periodically and replaces the elements that have the attribute data-live. If scripts are disabled,
// the whole page reloads.
(() => {
  const PAUSE = 10000;
  // A hanging exporter accepts the connection but does not respond.
  const TIMEOUT = 8000;
  const lost = document.getElementById("lost");
  // Elements are not replaced while text is selected. The notice that the page is out of date is shown anyway.
  const isBusy = () => !getSelection().isCollapsed;
  // Identifies an element across updates. Links with the same target differ in their text. Numbers in the text are
  // ignored, because they may change.
  const name = (element) =>
    element.dataset.key ||
    element.id ||
    element.getAttribute("aria-labelledby") ||
    `${element.getAttribute("href")} ${element.textContent.replace(/[\d,]/g, "")}`;

  const replace = (part, fresh) => {
    if (!fresh || part.innerHTML === fresh.innerHTML) return;
    const focused = part.contains(document.activeElement) ? name(document.activeElement) : null;
    const scrolled = new Map([...part.querySelectorAll(".scroll")].map((box) => [name(box), box.scrollLeft]));
    const open = new Set([...part.querySelectorAll("details[open]")].map(name));
    const next = document.importNode(fresh, true);
    for (const details of next.querySelectorAll("details")) {
      if (open.has(name(details))) details.open = true;
    }
    part.replaceWith(next);
    for (const box of next.querySelectorAll(".scroll")) box.scrollLeft = scrolled.get(name(box)) ?? 0;
    if (!focused) return;
    const candidates = next.querySelectorAll("a, summary, [tabindex]");
    [...candidates].find((element) => name(element) === focused)?.focus({ preventScroll: true });
  };

  // Out-of-date content is shown without its colours.
  const show = (isLost) => {
    lost.hidden = !isLost;
    document.body.classList.toggle("lost", isLost);
  };

  const refresh = async () => {
    if (!document.hidden) {
      try {
        const response = await fetch(location.href, {
          cache: "no-store",
          headers: { accept: "text/html" },
          signal: AbortSignal.timeout(TIMEOUT),
        });
        // The customer was removed, or a password is required: let the browser show the response.
        if ((response.status === 404 || response.status === 401) && !isBusy()) return location.reload();
        if (!response.ok) throw new Error(response.statusText);
        const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
        // The response may be a different page without data, such as a proxy's login page.
        if (!fresh.querySelector("[data-live]")) throw new Error("another page");
        if (!isBusy()) {
          for (const part of document.querySelectorAll("[data-live]")) replace(part, fresh.getElementById(part.id));
        }
        show(false);
      } catch {
        show(true);
      }
    }
    setTimeout(refresh, PAUSE);
  };
  setTimeout(refresh, PAUSE);
})();
