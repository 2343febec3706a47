// The page's icon in its tab: whether a site is down, or nothing is known.

const link = document.querySelector('link[rel="icon"]');
const usual = link.getAttribute('href');
const folder = usual.slice(0, usual.lastIndexOf('/'));

/** Show one of `down` and `none`, or the usual icon. */
export function showIcon(how) {
  const wanted = how === 'down' || how === 'none' ? `${folder}/icons/${how}.svg` : usual;
  if (link.getAttribute('href') !== wanted) link.setAttribute('href', wanted);
}
