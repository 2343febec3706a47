// The public status page: times as the reader's clock has them, and a new look every half minute.

const EVERY_MS = 30_000;
const stale = document.querySelector('.stale');
const announced = document.querySelector('[aria-live]');
const local = new Intl.DateTimeFormat('en-GB', {
  day: 'numeric', month: 'short', year: 'numeric', hour: '2-digit', minute: '2-digit', timeZoneName: 'short',
});

function localize(root) {
  for (const time of root.querySelectorAll('time')) {
    const at = new Date(time.dateTime);
    time.title = time.textContent;
    time.textContent = local.format(at);
  }
}

const words = () => document.querySelector('.verdict .words')?.textContent;

async function look() {
  const asOf = document.querySelector('.verdict time')?.textContent;
  let found;
  try {
    const answer = await fetch('status', { cache: 'no-cache', headers: { accept: 'text/html' }, signal: AbortSignal.timeout(EVERY_MS) });
    if (!answer.ok) throw new Error(String(answer.status));
    found = new DOMParser().parseFromString(await answer.text(), 'text/html');
  } catch {
    stale.textContent = `This page cannot be renewed. What you see is as of ${asOf}.`;
    stale.hidden = false;
    return;
  }
  const fresh = found.querySelector('main');
  if (fresh === null) return;
  const before = words();
  localize(fresh);
  document.querySelector('main').replaceWith(fresh);
  document.title = found.title;
  document.querySelector('link[rel="icon"]').href = found.querySelector('link[rel="icon"]').getAttribute('href');
  stale.hidden = true;
  if (words() !== before) announced.textContent = words();
}

let looked = Date.now();
async function lookIfSeen() {
  if (document.hidden || Date.now() - looked < EVERY_MS - 1000) return;
  looked = Date.now();
  await look();
}

localize(document);
setInterval(lookIfSeen, EVERY_MS);
// A tab that was hidden for long is renewed as soon as it is seen.
document.addEventListener('visibilitychange', lookIfSeen);
