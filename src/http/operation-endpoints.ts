/**
 * The calls by which operators work on deliveries: routes, dead letters, replays. A part of the
 * table in `endpoints.ts`.
 */
import type { Endpoint } from "./endpoints.ts";

const OPERATOR = { access: "operator", side: "admin" } as const;
const VIEWER = { access: "viewer", side: "admin" } as const;
const PICK_QUERY = ["target", "where", "reason", "from", "to", "state"];

/** The calls. */
export const OPERATION_ENDPOINTS: readonly Endpoint[] = [
  {
    ...OPERATOR,
    method: "POST",
    path: "/api/routes/:rule/pause",
    summary: "Pause a rule's routes; what is under way is finished",
    query: ["target"],
    answers: { 200: "Operated" },
    problems: [400, 404, 503],
  },
  {
    ...OPERATOR,
    method: "POST",
    path: "/api/routes/:rule/resume",
    summary: "Let a rule's paused routes go on",
    query: ["target"],
    answers: { 200: "Operated" },
    problems: [400, 404, 503],
  },
  {
    ...OPERATOR,
    method: "POST",
    path: "/api/routes/:rule/seek",
    summary: "Move the cursors of a rule's routes, or say what that would repeat and skip",
    query: ["target", "to", "dryRun"],
    answers: { 200: "Operated" },
    problems: [400, 404, 412, 416, 503],
  },
  {
    ...VIEWER,
    method: "GET",
    path: "/api/routes/:rule/parked",
    summary: "List the keys of a rule that wait for an operator",
    query: ["target"],
    answers: { 200: "List" },
    problems: [400, 404],
  },
  {
    ...OPERATOR,
    method: "POST",
    path: "/api/routes/:rule/release",
    summary: "Let parked keys be tried again from their first attempt",
    query: ["target", "key", "lane"],
    answers: { 200: "Operated" },
    problems: [400, 404, 503],
  },
  {
    ...VIEWER,
    method: "GET",
    path: "/api/journey",
    summary: "Follow one message: how it was received, what each rule made of it, where it is",
    query: ["id", "place", "stream"],
    answers: { 200: "Journeys" },
    problems: [400, 403, 404, 503],
  },
  {
    ...VIEWER,
    method: "GET",
    path: "/api/dead-letters/:name",
    summary: "List the dead letters of a rule or source, and what became of each",
    query: [...PICK_QUERY, "after", "max"],
    answers: { 200: "List" },
    problems: [400, 403, 416, 503],
  },
  {
    ...VIEWER,
    method: "GET",
    path: "/api/dead-letters/:name/:partition/:offset",
    summary: "Show one dead letter: the message as it was, and why it was given up",
    answers: { 200: "DeadLetter" },
    problems: [400, 403, 404, 503],
  },
  {
    ...OPERATOR,
    method: "POST",
    path: "/api/dead-letters/:name/retry",
    summary: "Send dead letters again, to the routes that failed, as a job",
    body: "Pick",
    answers: { 200: "Survey", 202: "Job" },
    problems: [400, 404, 413, 416, 429, 503],
  },
  {
    ...OPERATOR,
    method: "POST",
    path: "/api/dead-letters/:name/drop",
    summary: "Drop dead letters: they are not listed nor sent again unless asked for",
    body: "Pick",
    answers: { 200: "Operated" },
    problems: [400, 404, 413, 416, 503],
  },
  {
    ...VIEWER,
    method: "GET",
    path: "/api/replays",
    summary: "List the jobs that send again, newest first",
    answers: { 200: "List" },
  },
  {
    ...OPERATOR,
    method: "POST",
    path: "/api/replays",
    summary: "Send a window of a stream (again) to a rule's targets, as a job",
    body: "Replay",
    answers: { 200: "Survey", 202: "Job" },
    problems: [400, 404, 413, 416, 429, 503],
  },
  {
    ...VIEWER,
    method: "GET",
    path: "/api/replays/:id",
    summary: "Get one job",
    answers: { 200: "Job" },
    problems: [404],
  },
  {
    ...OPERATOR,
    method: "DELETE",
    path: "/api/replays/:id",
    summary: "Cancel a job: nothing more is handed over",
    answers: { 200: "Job" },
    problems: [404, 503],
  },
];
