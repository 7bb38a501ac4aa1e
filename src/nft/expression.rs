//! Rules as the kernel's expressions (`NFTA_RULE_EXPRESSIONS`).
//!
//! Expressions work on 16 registers of four bytes. A field of a concatenation starts a register of its own, so what an element of a set
//! has for that field is padded to four bytes. Registers are numbered here as the kernel prints them, so that what it says can be
//! compared with what it was told: 1 to 4 where one of the old registers of 16 bytes begins, 8 and up elsewhere.

use ipvs::Family;

use super::model::Set;
use super::rules::{Expression, Fields, IpProtocol, MarkBit, Reject, Rule, State};
use super::wire::Attributes;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

const NFT_META_MARK: u32 = 3;
const NFT_META_NFPROTO: u32 = 15;
const NFT_META_L4PROTO: u32 = 16;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// `NF_DROP`, `NF_ACCEPT`, `NFT_JUMP` (-3) and `NFT_GOTO` (-4).
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const JUMP: u32 = 0_u32.wrapping_sub(3);
const GOTO: u32 = 0_u32.wrapping_sub(4);

/// The verdict register.
const VERDICT: u32 = 0;

/// A rule's expressions.
pub(super) fn expressions(rule: &Rule) -> Attributes {
    let mut written = Expressions {
        list: Attributes::new(),
        tested: None,
    };
    for expression in &rule.0 {
        written.add(*expression);
    }
    written.list
}

struct Expressions {
    list: Attributes,
    /// The family that the packet has been tested for.
    tested: Option<Family>,
}

/// How a comparison must turn out (`NFT_CMP_EQ`, `NFT_CMP_NEQ`).
#[derive(Clone, Copy)]
enum Compare {
    Equal,
    Different,
}

/// Whether a lookup must find (`NFT_LOOKUP_F_INV`).
#[derive(Clone, Copy)]
enum Find {
    Present,
    Absent,
}

impl Expressions {
    fn add(&mut self, expression: Expression) {
        match expression {
            Expression::State(state) => self.state(state),
            Expression::Family(family) => self.family(family),
            Expression::Protocol(protocol) => {
                self.meta(NFT_META_L4PROTO, 0);
                self.compare(Compare::Equal, &[number(protocol)]);
            }
            Expression::In(fields, set) => self.lookup(fields, set, Find::Present),
            Expression::NotIn(fields, set) => self.lookup(fields, set, Find::Absent),
            Expression::Marked(bit) => {
                self.meta(NFT_META_MARK, 0);
                self.bitwise(bit.mark(), 0);
                self.compare(Compare::Equal, &bit.mark().to_ne_bytes());
            }
            Expression::Mark(bit) => self.set_mark(!bit.mark(), bit),
            Expression::Unmark(bit) => self.set_mark(u32::MAX, bit),
            Expression::NotLocal => self.not_local(),
            Expression::ArpRequest => {
                self.payload(NFT_PAYLOAD_NETWORK_HEADER, (6, 2), 0);
                self.compare(Compare::Equal, &[0, 1]);
            }
            // NFTA_OBJREF_IMM_TYPE (NFT_OBJECT_COUNTER), NFTA_OBJREF_IMM_NAME
            Expression::Count(counter) => self.push(
                "objref",
                &Attributes::new().number(1, 1).string(2, counter.name()),
            ),
            Expression::Reject(reject) => self.reject(reject),
            Expression::Translate(fields, map) => self.translate(fields, map),
            // NFTA_MASQ_FLAGS
            Expression::Masquerade => self.push(
                "masq",
                &Attributes::new().number(1, NF_NAT_RANGE_PROTO_RANDOM_FULLY),
            ),
            Expression::Accept => self.verdict(ACCEPT, None),
            Expression::Drop => self.verdict(DROP, None),
            Expression::Jump(chain) => self.verdict(JUMP, Some(chain)),
            Expression::Goto(chain) => self.verdict(GOTO, Some(chain)),
        }
    }

    fn push(&mut self, name: &str, data: &Attributes) {
        let expression = Attributes::new()
            .string(NFTA_EXPR_NAME, name)
            .nested(NFTA_EXPR_DATA, data);
        self.list.put_nested(NFTA_LIST_ELEM, &expression);
    }

    /// `NFTA_CT_KEY` 0 is `NFT_CT_STATE`, one bit of 1 invalid, 2 established, 4 related, 8 new.
    fn state(&mut self, state: State) {
        self.push("ct", &Attributes::new().number(1, register(0)).number(2, 0));
        let any_of = match state {
            State::New => 8,
            State::NotNew => return self.compare(Compare::Different, &8_u32.to_ne_bytes()),
            State::EstablishedOrRelated => 2 | 4,
            State::Invalid => 1,
        };
        self.bitwise(any_of, 0);
        self.compare(Compare::Different, &[0; 4]);
    }

    fn family(&mut self, family: Family) {
        if self.tested != Some(family) {
            self.tested = Some(family);
            self.meta(NFT_META_NFPROTO, 0);
            self.compare(Compare::Equal, &[nfproto(family)]);
        }
    }

    /// `NFTA_META_DREG`, `NFTA_META_KEY`.
    fn meta(&mut self, key: u32, unit: u32) {
        self.push(
            "meta",
            &Attributes::new().number(1, register(unit)).number(2, key),
        );
    }

    /// Sets the mark to (mark & mask) ^ bit. `NFTA_META_KEY`, `NFTA_META_SREG`.
    fn set_mark(&mut self, mask: u32, bit: MarkBit) {
        self.meta(NFT_META_MARK, 0);
        self.bitwise(mask, bit.mark());
        self.push(
            "meta",
            &Attributes::new()
                .number(2, NFT_META_MARK)
                .number(3, register(0)),
        );
    }

    /// `NFTA_CMP_SREG`, `NFTA_CMP_OP`, `NFTA_CMP_DATA`.
    fn compare(&mut self, compare: Compare, value: &[u8]) {
        let operation = match compare {
            Compare::Equal => 0,
            Compare::Different => 1,
        };
        self.push(
            "cmp",
            &Attributes::new()
                .number(1, register(0))
                .number(2, operation)
                .nested(3, &data(value)),
        );
    }

    /// `NFTA_BITWISE_SREG`, `_DREG`, `_LEN`, `_MASK`, `_XOR`.
    fn bitwise(&mut self, mask: u32, xor: u32) {
        self.push(
            "bitwise",
            &Attributes::new()
                .number(1, register(0))
                .number(2, register(0))
                .number(3, 4)
                .nested(4, &data(&mask.to_ne_bytes()))
                .nested(5, &data(&xor.to_ne_bytes())),
        );
    }

    /// `NFTA_PAYLOAD_DREG`, `_BASE`, `_OFFSET`, `_LEN`.
    fn payload(&mut self, base: u32, (offset, length): (u32, u32), unit: u32) {
        self.push(
            "payload",
            &Attributes::new()
                .number(1, register(unit))
                .number(2, base)
                .number(3, offset)
                .number(4, length),
        );
    }

    /// Loads fields for a set of this family into registers from the first on.
    fn load(&mut self, fields: Fields, family: Family) {
        if let Fields::ArpDestination = fields {
            return self.payload(NFT_PAYLOAD_NETWORK_HEADER, (24, 4), 0);
        }
        self.family(family);
        let (source, destination) = match family {
            Family::Ipv4 => ((12, 4), (16, 4)),
            Family::Ipv6 => ((8, 16), (24, 16)),
        };
        let (source_port, destination_port) = ((0, 2), (2, 2));
        let after = units(family);
        let network = NFT_PAYLOAD_NETWORK_HEADER;
        match fields {
            Fields::Source => self.payload(network, source, 0),
            Fields::Destination => self.payload(network, destination, 0),
            Fields::SourceKey => self.key(source, source_port, after),
            Fields::DestinationKey => self.key(destination, destination_port, after),
            Fields::DestinationKeyAndSource => {
                self.key(destination, destination_port, after);
                self.payload(network, source, after + 2);
            }
            Fields::Both => {
                self.payload(network, source, 0);
                self.payload(network, destination, after);
            }
            Fields::ArpDestination => {}
        }
    }

    fn key(&mut self, address: (u32, u32), port: (u32, u32), after: u32) {
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, address, 0);
        self.meta(NFT_META_L4PROTO, after);
        self.payload(NFT_PAYLOAD_TRANSPORT_HEADER, port, after + 1);
    }

    /// `NFTA_LOOKUP_SET`, `_SREG`, `_FLAGS`.
    fn lookup(&mut self, fields: Fields, set: Set, find: Find) {
        self.load(fields, set.family());
        let flags = match find {
            Find::Present => 0,
            Find::Absent => 1,
        };
        self.push(
            "lookup",
            &Attributes::new()
                .string(1, &set.to_string())
                .number(2, register(0))
                .number(5, flags),
        );
    }

    /// `NFTA_FIB_DREG`, `_RESULT` (`NFT_FIB_RESULT_ADDRTYPE`), `_FLAGS` (`NFTA_FIB_F_DADDR`); the result is an `RTN_*`, of which 2 is local.
    fn not_local(&mut self) {
        self.push(
            "fib",
            &Attributes::new()
                .number(1, register(0))
                .number(2, 3)
                .number(3, 2),
        );
        self.compare(Compare::Different, &2_u32.to_ne_bytes());
    }

    /// `NFTA_REJECT_TYPE` (`NFT_REJECT_ICMP_UNREACH`, `_TCP_RST`, `_ICMPX_UNREACH`), `NFTA_REJECT_ICMP_CODE`.
    fn reject(&mut self, reject: Reject) {
        let kind = Attributes::new();
        let data = match reject {
            Reject::TcpReset => kind.number(1, 1),
            Reject::ProtocolUnreachable => kind.number(1, 0).byte(2, 2),
            Reject::PortUnreachable => kind.number(1, 2).byte(2, 1),
        };
        self.push("reject", &data);
    }

    /// A lookup with `NFTA_LOOKUP_DREG`, then `NFTA_NAT_TYPE` (`NFT_NAT_DNAT`), `_FAMILY`, `_REG_ADDR_MIN`, `_MAX`, `_REG_PROTO_MIN`, `_MAX`.
    fn translate(&mut self, fields: Fields, map: Set) {
        self.load(fields, map.family());
        self.push(
            "lookup",
            &Attributes::new()
                .string(1, &map.to_string())
                .number(2, register(0))
                .number(3, register(0)),
        );
        let address = register(0);
        let port = register(units(map.family()));
        self.push(
            "nat",
            &Attributes::new()
                .number(1, 1)
                .number(2, nfproto(map.family()).into())
                .number(3, address)
                .number(4, address)
                .number(5, port)
                .number(6, port),
        );
    }

    /// `NFTA_IMMEDIATE_DREG`, `NFTA_IMMEDIATE_DATA`.
    fn verdict(&mut self, code: u32, chain: Option<&str>) {
        let verdict = Attributes::new().number(NFTA_VERDICT_CODE, code);
        let verdict = match chain {
            None => verdict,
            Some(chain) => verdict.string(NFTA_VERDICT_CHAIN, chain),
        };
        self.push(
            "immediate",
            &Attributes::new()
                .number(1, VERDICT)
                .nested(2, &Attributes::new().nested(NFTA_DATA_VERDICT, &verdict)),
        );
    }
}

/// `NFTA_DATA_VALUE`.
pub(super) fn data(value: &[u8]) -> Attributes {
    Attributes::new().bytes(NFTA_DATA_VALUE, value)
}

/// How many registers of four bytes an address takes.
fn units(family: Family) -> u32 {
    match family {
        Family::Ipv4 => 1,
        Family::Ipv6 => 4,
    }
}

/// The number of the register that begins after so many of four bytes.
fn register(unit: u32) -> u32 {
    if unit.is_multiple_of(4) {
        1 + unit / 4
    } else {
        8 + unit
    }
}

fn nfproto(family: Family) -> u8 {
    match family {
        Family::Ipv4 => NFPROTO_IPV4,
        Family::Ipv6 => NFPROTO_IPV6,
    }
}

fn number(protocol: IpProtocol) -> u8 {
    match protocol {
        IpProtocol::Icmp => 1,
        IpProtocol::Tcp => 6,
        IpProtocol::Icmpv6 => 58,
        IpProtocol::Sctp => 132,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_numbered_as_the_kernel_prints_them() {
        assert_eq!(
            [0, 1, 2, 4, 5, 6, 8].map(register),
            [1, 9, 10, 2, 13, 14, 3]
        );
    }
}
