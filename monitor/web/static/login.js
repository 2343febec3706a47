// The form that asks for a token.

import { h } from './dom.js';

/** The form; `logIn(token)` rejects with the reason, as the daemon says it. */
export function loginForm(logIn) {
  const input = h('input', { id: 'token', type: 'password', autocomplete: 'current-password', required: true, spellcheck: 'false' });
  const problem = h('p', { class: 'problem', role: 'alert' });
  const button = h('button', { class: 'primary', type: 'submit' }, 'Log in');
  return h(
    'form',
    {
      class: 'login panel',
      onsubmit: async (event) => {
        event.preventDefault();
        button.disabled = true;
        try {
          await logIn(input.value.trim());
        } catch (error) {
          problem.textContent = `${error.message[0].toUpperCase()}${error.message.slice(1)}.`;
          input.select();
        }
        button.disabled = false;
      },
    },
    h('h1', {}, 'Log in'),
    h('p', { class: 'muted' }, 'With an API token of this daemon. An administrator makes one with ', h('code', { class: 'mono' }, 'recodex-monitor token create'), '.'),
    // Password managers keep a name with each secret.
    h('input', { type: 'text', autocomplete: 'username', value: 'token', hidden: true, 'aria-hidden': 'true' }),
    h('label', { for: 'token' }, 'Token'),
    input,
    button,
    problem,
  );
}
