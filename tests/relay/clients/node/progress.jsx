// The progress of a job, as a web application shows it: it opens one connection, names the channel,
// counts what TASK says, ends with FINISHED, and never connects again.
import { useEffect } from "react";
import { createRoot } from "react-dom/client";
import { Provider, useDispatch, useSelector } from "react-redux";
import { legacy_createStore as createStore } from "redux";

const NOTHING = { phase: "connecting", COMPLETED: 0, SKIPPED: 0, FAILED: 0, commands: [] };

function reduce(state = NOTHING, action) {
  switch (action.type) {
    case "opened":
      return { ...state, phase: "open" };
    case "said": {
      const { command, task_state: result } = action.message;
      const next = { ...state, commands: [...state.commands, command] };
      if (command === "TASK") next[result] += 1;
      if (command === "FINISHED") next.phase = "finished";
      return next;
    }
    case "closed":
      return state.phase === "finished" ? state : { ...state, phase: `lost ${action.code}` };
    default:
      return state;
  }
}

function Progress({ url, channel, tasks }) {
  const dispatch = useDispatch();
  const state = useSelector((all) => all);
  useEffect(() => {
    const socket = new WebSocket(url);
    socket.onopen = () => {
      socket.send(channel);
      dispatch({ type: "opened" });
    };
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      dispatch({ type: "said", message });
      if (message.command === "FINISHED") socket.close();
    };
    socket.onclose = ({ code }) => dispatch({ type: "closed", code });
    return () => socket.close();
  }, [url, channel, dispatch]);
  const done = state.COMPLETED + state.SKIPPED + state.FAILED;
  return (
    <section id="progress" data-phase={state.phase}>
      <progress max={tasks} value={done} />
      <span>
        {state.COMPLETED} completed, {state.SKIPPED} skipped, {state.FAILED} failed
      </span>
      <ol>{state.commands.map((command, number) => <li key={number}>{command}</li>)}</ol>
    </section>
  );
}

const asked = new URLSearchParams(location.search);
createRoot(document.body.appendChild(document.createElement("main"))).render(
  <Provider store={createStore(reduce)}>
    <Progress url={asked.get("url")} channel={asked.get("channel")} tasks={asked.get("tasks")} />
  </Provider>,
);
