/** The roles of those who run the gateway, from the least to the most: each holds the ones before. */

/** Admin changes everything; operator replays, pauses and publishes; viewer reads. */
export const ROLES = ["viewer", "operator", "admin"] as const;
export type Role = (typeof ROLES)[number];
