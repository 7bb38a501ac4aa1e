//! The language that the fixed part of our nftables is written in, as far as we need one: tables, chains, rules, expressions.
//! [`super::chains`] is written in it.

use ipvs::Family;

use super::model::Set;

/// What in the rules depends on the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The bit of the packet mark that means "masquerade".
    pub mark: MarkBit,
    /// How clients in the cluster are told from others.
    pub detector: Detector,
}

/// One bit of the packet mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkBit(u32);

impl MarkBit {
    /// The bit with this number, 0 to 31; `None` above.
    pub const fn new(number: u32) -> Option<Self> {
        match 1_u32.checked_shl(number) {
            Some(mark) => Some(Self(mark)),
            None => None,
        }
    }

    /// The mark with only this bit.
    pub const fn mark(self) -> u32 {
        self.0
    }
}

/// 0x4000, as kube-proxy's.
impl Default for MarkBit {
    fn default() -> Self {
        Self(1 << 14)
    }
}

/// How clients in the cluster are told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detector {
    /// They are not; [`Set::MasqueradeOffCluster`], [`Set::Pods`] and [`Set::LocalPods`] are empty.
    None,
    /// By their addresses: [`Set::Pods`]. A family without ranges has an empty [`Set::MasqueradeOffCluster`].
    Ranges,
}

/// A table with its objects, in the order in which they are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Which of our tables.
    pub name: TableName,
    /// Named counters.
    pub counters: Vec<Counter>,
    /// Sets and maps.
    pub sets: Vec<Set>,
    /// Chains; those that rules jump to come first.
    pub chains: Vec<Chain>,
}

/// Our tables; both are called `weir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableName {
    /// `inet weir`.
    Inet,
    /// `arp weir`.
    Arp,
}

/// A named counter of `inet weir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Refused: a port of a VIP that is no frontend.
    UndefinedPort,
    /// Refused: a frontend without a usable endpoint.
    NoEndpoint,
    /// Dropped: a frontend of policy Local without an endpoint here.
    LocalOnly,
    /// Dropped: a client outside the frontend's source ranges.
    SourceRange,
    /// Dropped: a packet of a real server that connection tracking could not place.
    Invalid,
    /// Dropped: an address of a service range that no Service has.
    Unallocated,
}

impl Counter {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::UndefinedPort,
        Self::NoEndpoint,
        Self::LocalOnly,
        Self::SourceRange,
        Self::Invalid,
        Self::Unallocated,
    ];

    /// Its name in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UndefinedPort => "undefined_port",
            Self::NoEndpoint => "no_endpoint",
            Self::LocalOnly => "local_only",
            Self::SourceRange => "source_range",
            Self::Invalid => "invalid",
            Self::Unallocated => "unallocated",
        }
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where the kernel calls it; `None` if only rules do.
    pub hook: Option<Hook>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Where the kernel calls a chain. The policy is always accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// The chain's type.
    pub kind: ChainKind,
    /// The hook.
    pub point: HookPoint,
    /// The priority; lower ones come first.
    pub priority: i32,
}

/// The type of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of a connection.
    Nat,
}

/// A hook of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    /// `NF_INET_PRE_ROUTING`.
    Prerouting,
    /// `NF_INET_LOCAL_IN`.
    Input,
    /// `NF_INET_FORWARD`.
    Forward,
    /// `NF_INET_LOCAL_OUT`.
    Output,
    /// `NF_INET_POST_ROUTING`.
    Postrouting,
    /// `NF_ARP_IN`.
    ArpInput,
}

/// A rule: expressions, each reached if those before it matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule(pub Vec<Expression>);

/// A part of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expression {
    /// `ct state`.
    State(State),
    /// `meta nfproto`.
    Family(Family),
    /// `meta l4proto`.
    Protocol(IpProtocol),
    /// Fields of the packet are an element of a set. Addresses are of the set's family, which the packet is tested for.
    In(Fields, Set),
    /// Fields of the packet are no element of a set, the packet being of the set's family.
    NotIn(Fields, Set),
    /// The mark has this bit.
    Marked(MarkBit),
    /// Sets this bit of the mark.
    Mark(MarkBit),
    /// Clears this bit of the mark, which is set.
    Unmark(MarkBit),
    /// `fib daddr type != local`.
    NotLocal,
    /// `arp operation request`.
    ArpRequest,
    /// Counts.
    Count(Counter),
    /// Refuses.
    Reject(Reject),
    /// Translates the destination to what a map has for these fields; the rule ends if it has nothing.
    Translate(Fields, Set),
    /// `masquerade fully-random`.
    Masquerade,
    /// `accept`.
    Accept,
    /// `drop`.
    Drop,
    /// Goes on in another chain, and comes back.
    Jump(&'static str),
    /// Goes on in another chain.
    Goto(&'static str),
}

/// What connection tracking thinks of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It may start a connection.
    New,
    /// It cannot start one.
    NotNew,
    /// It belongs to a connection, or is an error about one.
    EstablishedOrRelated,
    /// It cannot be placed.
    Invalid,
}

/// A protocol in the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpProtocol {
    /// 1.
    Icmp,
    /// 6.
    Tcp,
    /// 58.
    Icmpv6,
    /// 132.
    Sctp,
}

/// Fields of a packet, joined as in the elements of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fields {
    /// Source address.
    Source,
    /// Destination address.
    Destination,
    /// Source address, protocol, source port.
    SourceKey,
    /// Destination address, protocol, destination port.
    DestinationKey,
    /// Destination address, protocol, destination port, source address.
    DestinationKeyAndSource,
    /// Source address, destination address.
    Both,
    /// `arp daddr ip`.
    ArpDestination,
}

/// How a packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// A TCP RST.
    TcpReset,
    /// ICMP (IPv4) protocol unreachable.
    ProtocolUnreachable,
    /// ICMP port unreachable, of either family.
    PortUnreachable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_one_of_32_bits() {
        assert_eq!(MarkBit::new(14), Some(MarkBit::default()));
        assert_eq!(MarkBit::new(31).map(MarkBit::mark), Some(0x8000_0000));
        assert_eq!(MarkBit::new(32), None);
    }
}
