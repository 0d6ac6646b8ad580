//! Which arms are asked what.

use crate::{
    group::Group,
    load::Load,
    plan::Plan,
    scene::{FORWARDED, HERE, LARGE},
    subject::{
        ALL, NONE,
        Protocol::{Grpc, Http},
        Subject::{
            Bare, Caddy, Dead, Disabled, Missing, Nginx, Peer, Plain, Python, Sampled, Slow, Stack,
        },
    },
};

/// The title of the group that most targets are about.
pub(crate) const FORWARDED_REQUEST: &str = "Forwarded";
/// The title of the group whose requests the host answers by itself.
pub(crate) const ANSWERED_HERE: &str = "Answered here";
/// The title of the group beside other programs.
pub(crate) const PEERS: &str = "Beside others";

/// All groups, or of them the groups and arms that are meant.
pub(crate) fn groups(plan: &Plan) -> Vec<Group> {
    let mut groups = all(plan);
    for group in &mut groups {
        if !plan.is_meant(group.title) {
            group.subjects.retain(|subject| plan.is_meant(&subject.to_string()));
        }
    }
    groups.retain(|group| !group.subjects.is_empty());
    groups
}

fn all(plan: &Plan) -> Vec<Group> {
    let http1 = |path, connections| Load { path, connections, streams: None };
    let group = |title, load, subjects| {
        let few = plan.rounds / 2;
        Group { title, load, rounds: few.max(3), yardstick: Plain, subjects }
    };
    let states = vec![
        Bare,
        Stack,
        Missing,
        Disabled,
        NONE,
        Sampled("0.01", Grpc),
        ALL,
        Sampled("1", Http),
        Dead,
        Slow,
        Nginx,
    ];
    let peers = vec![
        Plain,
        NONE,
        ALL,
        Peer("tower", "0"),
        Peer("tower", "1"),
        Peer("axum", "0"),
        Peer("axum", "1"),
        Peer("sdk", "0"),
        Peer("sdk", "1"),
        Nginx,
        Caddy(false),
        Caddy(true),
        Python(false),
        Python(true),
    ];
    let http2 = Load { path: FORWARDED, connections: 4, streams: Some(16) };
    vec![
        Group { rounds: plan.rounds, ..group(FORWARDED_REQUEST, http1(FORWARDED, 64), states) },
        group(ANSWERED_HERE, http1(HERE, 64), vec![NONE, ALL]),
        group("Forwarded, a body of 1 MiB", http1(LARGE, 16), vec![NONE, ALL, Nginx]),
        group("Forwarded, 1,024 connections", http1(FORWARDED, 1024), vec![NONE, ALL, Nginx]),
        group("Forwarded, HTTP/2", http2, vec![NONE, ALL, Bare]),
        Group { yardstick: Bare, ..group(PEERS, http1(FORWARDED, 64), peers) },
    ]
}
