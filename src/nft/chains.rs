//! The fixed part of our nftables: tables, chains and rules. They are written here once; [`super::text`] makes a file for `nft` of them and
//! `super::encode` messages for the kernel.
//!
//! How a packet travels; numbers are hook priorities, and IPVS has its own (input 98 and 99, output -99 and -98, forward 99 and 100).
//!
//! ```text
//! from outside or a pod:  prerouting  -110 inner addresses, source ranges: by the name the client used, before any translation
//!                                     -100 masquerade mark, then translation of the minority that IPVS must not see under that name
//!                         input          0 INVALID packets of real servers; new ones to dark and drop
//!                                      110 what IPVS left of the VIPs' packets: undefined ports
//!                         postrouting  100 masquerade what is marked, clearing the mark; hairpin
//! the node's own:         output      -110 source ranges
//!                                     -100 as in prerouting
//!                                      -99 dark, drop, not local any more or not yet: after translation, before IPVS schedules
//!                         postrouting      the same
//! through the node:       forward        0 INVALID packets of real servers; new ones to what should be local
//! ```
//!
//! Translation happens at -100 whatever priority a chain of type nat has, so -99 is the only place after it and before IPVS.

use ipvs::Family;

use super::model::Set;
use super::rules::{
    Chain, ChainKind, Counter, Detector, Expression, Fields, Hook, HookPoint, IpProtocol, MarkBit,
    Reject, Rule, Settings, State, Table, TableName,
};

/// Our tables.
pub fn tables(settings: Settings) -> [Table; 2] {
    [inet(settings), arp()]
}

fn inet(settings: Settings) -> Table {
    Table {
        name: TableName::Inet,
        counters: Counter::ALL.to_vec(),
        sets: Set::all().filter(|set| *set != Set::Arp).collect(),
        chains: vec![
            refuse(),
            ranges(),
            verdicts(),
            invalid(),
            pre_filter(),
            pre_nat(settings),
            input(),
            input_rest(),
            forward(),
            out_ranges(),
            out_nat(settings.mark),
            out_verdicts(),
            post_nat(settings.mark),
        ],
    }
}

fn arp() -> Table {
    Table {
        name: TableName::Arp,
        counters: Vec::new(),
        sets: vec![Set::Arp],
        chains: vec![hooked(
            "input",
            (ChainKind::Filter, HookPoint::ArpInput, 0),
            vec![rule([
                Expression::ArpRequest,
                Expression::In(Fields::ArpDestination, Set::Arp),
                Expression::Drop,
            ])],
        )],
    }
}

/// Refuses in the way that the client's protocol understands best. Linux SCTP listens to protocol unreachable alone, which `ICMPv6` has not:
/// SCTP clients over IPv6 time out.
fn refuse() -> Chain {
    called(
        "refuse",
        vec![
            rule([
                Expression::Protocol(IpProtocol::Tcp),
                Expression::Reject(Reject::TcpReset),
            ]),
            rule([
                Expression::Family(Family::Ipv4),
                Expression::Protocol(IpProtocol::Sctp),
                Expression::Reject(Reject::ProtocolUnreachable),
            ]),
            rule([Expression::Reject(Reject::PortUnreachable)]),
        ],
    )
}

/// Source ranges, which hold for clients in the cluster as well.
fn ranges() -> Chain {
    called(
        "ranges",
        both(|family| {
            rule([
                Expression::In(Fields::DestinationKey, Set::Restricted(family)),
                Expression::NotIn(Fields::DestinationKeyAndSource, Set::Allowed(family)),
                Expression::Count(Counter::SourceRange),
                Expression::Drop,
            ])
        }),
    )
}

/// Frontends that have nobody to answer. Clients that have been translated to another frontend do not come by under this name, so no
/// question about the client is needed.
fn verdicts() -> Chain {
    let dark = both(|family| {
        rule([
            Expression::In(Fields::DestinationKey, Set::Dark(family)),
            Expression::Count(Counter::NoEndpoint),
            Expression::Goto("refuse"),
        ])
    });
    let drop = both(|family| {
        rule([
            Expression::In(Fields::DestinationKey, Set::Drop(family)),
            Expression::Count(Counter::LocalOnly),
            Expression::Drop,
        ])
    });
    called("verdicts", [dark, drop].concat())
}

/// A real server's packet that connection tracking cannot place would leave untranslated, and the client would answer with RST.
fn invalid() -> Chain {
    called(
        "invalid",
        both(|family| {
            rule([
                Expression::In(Fields::SourceKey, Set::Endpoints(family)),
                Expression::Count(Counter::Invalid),
                Expression::Drop,
            ])
        }),
    )
}

fn pre_filter() -> Chain {
    let inner = both(|family| {
        rule([
            Expression::In(Fields::Destination, Set::Inner(family)),
            Expression::Drop,
        ])
    });
    hooked(
        "pre_filter",
        (ChainKind::Filter, HookPoint::Prerouting, -110),
        [
            vec![rule([Expression::State(State::NotNew), Expression::Accept])],
            inner,
            vec![rule([Expression::Jump("ranges")])],
        ]
        .concat(),
    )
}

fn pre_nat(settings: Settings) -> Chain {
    let mark = settings.mark;
    let mut rules = both(|family| mark_key(Set::MasqueradeAll(family), mark));
    match settings.detector {
        Detector::None => {}
        Detector::Ranges => rules.extend(for_pods(mark)),
    }
    rules.extend(both(|family| translate(Set::Steer(family))));
    hooked(
        "pre_nat",
        (ChainKind::Nat, HookPoint::Prerouting, -100),
        rules,
    )
}

/// What depends on the client being a pod. A pod of another node must be masqueraded at a frontend of policy Local, or an endpoint on its own
/// node would answer it directly.
fn for_pods(mark: MarkBit) -> Vec<Rule> {
    let off_cluster = both(|family| {
        preceded(
            [Expression::NotIn(Fields::Source, Set::Pods(family))],
            mark_key(Set::MasqueradeOffCluster(family), mark),
        )
    });
    let other_nodes = both(|family| {
        preceded(
            [
                Expression::In(Fields::Source, Set::Pods(family)),
                Expression::NotIn(Fields::Source, Set::LocalPods(family)),
            ],
            mark_key(Set::MasqueradeNode(family), mark),
        )
    });
    let short = both(|family| {
        preceded(
            [Expression::In(Fields::Source, Set::Pods(family))],
            translate(Set::Short(family)),
        )
    });
    [off_cluster, other_nodes, short].concat()
}

fn input() -> Chain {
    hooked(
        "input",
        (ChainKind::Filter, HookPoint::Input, 0),
        vec![
            rule([
                Expression::State(State::Invalid),
                Expression::Jump("invalid"),
            ]),
            rule([Expression::State(State::New), Expression::Jump("verdicts")]),
        ],
    )
}

/// IPVS took its packets at 99: what is still addressed to a VIP is for an undefined port.
fn input_rest() -> Chain {
    let mut rules = vec![
        rule([
            Expression::State(State::EstablishedOrRelated),
            Expression::Accept,
        ]),
        rule([Expression::Protocol(IpProtocol::Icmp), Expression::Accept]),
        rule([Expression::Protocol(IpProtocol::Icmpv6), Expression::Accept]),
    ];
    rules.extend(both(|family| {
        rule([
            Expression::In(Fields::Destination, Set::Vips(family)),
            Expression::Count(Counter::UndefinedPort),
            Expression::Goto("refuse"),
        ])
    }));
    hooked(
        "input_rest",
        (ChainKind::Filter, HookPoint::Input, 110),
        rules,
    )
}

/// A frontend whose address is not local yet, or not any more: nothing may leave under its name and be tracked. VIPs are local, so what
/// is forwarded to a service range is unallocated.
fn forward() -> Chain {
    let mut rules = vec![
        rule([
            Expression::State(State::Invalid),
            Expression::Jump("invalid"),
        ]),
        rule([Expression::State(State::NotNew), Expression::Accept]),
    ];
    rules.extend(both(|family| {
        rule([
            Expression::In(Fields::DestinationKey, Set::Owned(family)),
            Expression::Drop,
        ])
    }));
    rules.extend(both(|family| {
        rule([
            Expression::In(Fields::Destination, Set::Cidrs(family)),
            Expression::Count(Counter::Unallocated),
            Expression::Drop,
        ])
    }));
    hooked("forward", (ChainKind::Filter, HookPoint::Forward, 0), rules)
}

fn out_ranges() -> Chain {
    hooked(
        "out_ranges",
        (ChainKind::Filter, HookPoint::Output, -110),
        vec![rule([
            Expression::State(State::New),
            Expression::Jump("ranges"),
        ])],
    )
}

fn out_nat(mark: MarkBit) -> Chain {
    let sets = [
        Set::MasqueradeAll,
        Set::MasqueradeOffCluster,
        Set::MasqueradeNode,
    ];
    let marks = sets.map(|set| both(|family| mark_key(set(family), mark)));
    let translations = [Set::Short, Set::Steer].map(|set| both(|family| translate(set(family))));
    hooked(
        "out_nat",
        (ChainKind::Nat, HookPoint::Output, -100),
        [marks.concat(), translations.concat()].concat(),
    )
}

fn out_verdicts() -> Chain {
    let mut rules = vec![
        rule([Expression::State(State::NotNew), Expression::Accept]),
        rule([Expression::Jump("verdicts")]),
    ];
    rules.extend(both(|family| {
        rule([
            Expression::In(Fields::DestinationKey, Set::Owned(family)),
            Expression::NotLocal,
            Expression::Drop,
        ])
    }));
    rules.extend(both(|family| {
        rule([
            Expression::In(Fields::Destination, Set::Cidrs(family)),
            Expression::NotIn(Fields::Destination, Set::Vips(family)),
            Expression::Count(Counter::Unallocated),
            Expression::Drop,
        ])
    }));
    hooked(
        "out_verdicts",
        (ChainKind::Filter, HookPoint::Output, -99),
        rules,
    )
}

/// The mark goes before masquerading: the outer packet of a tunnel inherits it and would be masqueraded as well.
fn post_nat(mark: MarkBit) -> Chain {
    let mut rules = vec![rule([
        Expression::Marked(mark),
        Expression::Unmark(mark),
        Expression::Masquerade,
    ])];
    rules.extend(both(|family| {
        rule([
            Expression::In(Fields::Both, Set::Hairpin(family)),
            Expression::Masquerade,
        ])
    }));
    hooked(
        "post_nat",
        (ChainKind::Nat, HookPoint::Postrouting, 100),
        rules,
    )
}

fn mark_key(set: Set, mark: MarkBit) -> Rule {
    rule([
        Expression::In(Fields::DestinationKey, set),
        Expression::Mark(mark),
    ])
}

fn translate(map: Set) -> Rule {
    rule([Expression::Translate(Fields::DestinationKey, map)])
}

fn rule(expressions: impl Into<Vec<Expression>>) -> Rule {
    Rule(expressions.into())
}

fn preceded(expressions: impl Into<Vec<Expression>>, rule: Rule) -> Rule {
    let mut expressions = expressions.into();
    expressions.extend(rule.0);
    Rule(expressions)
}

/// The same rule for each family.
fn both(rule: impl Fn(Family) -> Rule) -> Vec<Rule> {
    [Family::Ipv4, Family::Ipv6].map(rule).into()
}

fn called(name: &'static str, rules: Vec<Rule>) -> Chain {
    Chain {
        name,
        hook: None,
        rules,
    }
}

fn hooked(
    name: &'static str,
    (kind, point, priority): (ChainKind, HookPoint, i32),
    rules: Vec<Rule>,
) -> Chain {
    Chain {
        name,
        hook: Some(Hook {
            kind,
            point,
            priority,
        }),
        rules,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_jump_only_to_chains_made_before_them() {
        for table in tables(Settings {
            mark: MarkBit::default(),
            detector: Detector::Ranges,
        }) {
            let mut made = Vec::new();
            for chain in table.chains {
                for expression in chain.rules.iter().flat_map(|rule| &rule.0) {
                    if let Expression::Jump(name) | Expression::Goto(name) = expression {
                        assert!(made.contains(name), "{} jumps to {name}", chain.name);
                    }
                }
                made.push(chain.name);
            }
        }
    }

    #[test]
    fn without_a_detector_nothing_asks_for_pods() {
        let [inet, _] = tables(Settings {
            mark: MarkBit::default(),
            detector: Detector::None,
        });
        let asks = |expression: &Expression| {
            matches!(
                expression,
                Expression::In(_, Set::Pods(_) | Set::LocalPods(_))
                    | Expression::NotIn(_, Set::Pods(_) | Set::LocalPods(_))
            )
        };
        let rules = inet.chains.iter().flat_map(|chain| &chain.rules);
        assert!(!rules.flat_map(|rule| &rule.0).any(asks));
    }
}
