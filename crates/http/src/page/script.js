'use strict';
// Replaces the content every few seconds. What a person has opened or focused stays so.
const main = document.querySelector('main');
const summary = document.querySelector('header p');
const button = document.querySelector('button');
const note = document.querySelector('[role=status]');
let paused = false;

async function update() {
  const selection = getSelection();
  if (paused || document.hidden || (selection && !selection.isCollapsed)) return;
  try {
    const response = await fetch(location.pathname, { cache: 'no-store' });
    if (!response.ok) throw new Error(String(response.status));
    const next = new DOMParser().parseFromString(await response.text(), 'text/html');
    const open = [...main.querySelectorAll('details')].map((it) => [it.id, it.open]);
    const focused = document.activeElement && document.activeElement.id;
    const scrolled = [...main.querySelectorAll('.scroll')].map((it) => [it.id, it.scrollLeft]);
    main.replaceChildren(...next.querySelector('main').childNodes);
    summary.replaceChildren(...next.querySelector('header p').childNodes);
    for (const [id, isOpen] of open) {
      const found = document.getElementById(id);
      if (found) found.open = isOpen;
    }
    for (const [id, left] of scrolled) {
      const found = document.getElementById(id);
      if (found) found.scrollLeft = left;
    }
    const found = focused && document.getElementById(focused);
    if (found) found.focus({ preventScroll: true });
    if (note.textContent) note.textContent = '';
  } catch {
    note.textContent = 'The monitor does not answer. These numbers are old.';
  }
}

button.hidden = false;
button.addEventListener('click', () => {
  paused = !paused;
  button.textContent = paused ? 'Continue' : 'Pause';
  button.setAttribute('aria-pressed', String(paused));
  update();
});
setInterval(update, 5000);
