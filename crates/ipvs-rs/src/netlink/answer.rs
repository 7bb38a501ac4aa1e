//! The kernel's answers as bytes: headers, outcomes, the kernel's own words.

use netlink_packet_core::{DecodeError, NLM_F_DUMP_INTR, NetlinkHeader};

use super::error::TransportError;
use super::rejection::Rejection;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLA_TYPE_MASK: u16 = 0x3fff;
const ALIGN: usize = 4;
const HEADER: usize = 16;

/// One message of a datagram.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub(super) header: NetlinkHeader,
    pub(super) payload: &'a [u8],
}

/// What a message from the kernel is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message of the protocol.
    Message,
    /// `NLMSG_ERROR`: what became of one request.
    Outcome(Result<(), Rejection>),
    /// `NLMSG_DONE`: the end of a dump, or its failure.
    Done(Result<(), Rejection>),
}

/// The messages of one datagram, up to the first that cannot be one.
pub(super) fn answers(datagram: &[u8]) -> impl Iterator<Item = Result<Answer<'_>, TransportError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let answer = split(rest);
        rest = answer.as_ref().map_or(&[], |(_, rest)| *rest);
        Some(answer.map(|(answer, _)| answer))
    })
}

fn split(bytes: &[u8]) -> Result<(Answer<'_>, &[u8]), TransportError> {
    let malformed = || {
        TransportError::Decode(Box::new(DecodeError::from(
            "a netlink header does not fit its datagram",
        )))
    };
    let (header, payload) = header(bytes).ok_or_else(malformed)?;
    let length = usize::try_from(header.length).ok().ok_or_else(malformed)?;
    let payload = length
        .checked_sub(HEADER)
        .and_then(|length| payload.get(..length))
        .ok_or_else(malformed)?;
    let rest = bytes
        .get(length.next_multiple_of(ALIGN)..)
        .unwrap_or_default();
    Ok((Answer { header, payload }, rest))
}

/// `struct nlmsghdr` and what follows it.
fn header(bytes: &[u8]) -> Option<(NetlinkHeader, &[u8])> {
    let (length, bytes) = bytes.split_first_chunk()?;
    let (message_type, bytes) = bytes.split_first_chunk()?;
    let (flags, bytes) = bytes.split_first_chunk()?;
    let (sequence_number, bytes) = bytes.split_first_chunk()?;
    let (port_number, bytes) = bytes.split_first_chunk()?;
    let mut header = NetlinkHeader::default();
    header.length = u32::from_ne_bytes(*length);
    header.message_type = u16::from_ne_bytes(*message_type);
    header.flags = u16::from_ne_bytes(*flags);
    header.sequence_number = u32::from_ne_bytes(*sequence_number);
    header.port_number = u32::from_ne_bytes(*port_number);
    Some((header, bytes))
}

impl Answer<'_> {
    /// Whether the kernel's tables changed while it dumped them.
    pub(super) fn is_disturbed(&self) -> bool {
        self.header.flags & NLM_F_DUMP_INTR != 0
    }

    pub(super) fn kind(&self) -> Result<Kind, TransportError> {
        match self.header.message_type {
            NLMSG_ERROR => Ok(Kind::Outcome(self.outcome(self.words_of_error())?)),
            // Some dumps end without a code.
            NLMSG_DONE if self.payload.is_empty() => Ok(Kind::Done(Ok(()))),
            NLMSG_DONE => Ok(Kind::Done(self.outcome(self.payload.get(4..))?)),
            NLMSG_OVERRUN => Err(TransportError::Overflow),
            NLMSG_NOOP => Err(TransportError::Decode(Box::new(DecodeError::from(
                "the kernel answered with NLMSG_NOOP",
            )))),
            _ => Ok(Kind::Message),
        }
    }

    fn outcome(&self, words: Option<&[u8]>) -> Result<Result<(), Rejection>, TransportError> {
        let (code, _) = self.payload.split_first_chunk().ok_or_else(|| {
            TransportError::Decode(Box::new(DecodeError::from("an answer has no code")))
        })?;
        match i32::from_ne_bytes(*code) {
            0 => Ok(Ok(())),
            code => Ok(Err(Rejection {
                errno: code.checked_neg().unwrap_or(i32::MAX),
                text: words
                    .filter(|_| self.header.flags & NLM_F_ACK_TLVS != 0)
                    .and_then(text),
            })),
        }
    }

    /// The attributes of an `NLMSG_ERROR`: behind the code and the request, of which only the header is there if it is capped.
    fn words_of_error(&self) -> Option<&[u8]> {
        let request = self.payload.get(4..)?;
        let length = if self.header.flags & NLM_F_CAPPED != 0 {
            HEADER
        } else {
            usize::try_from(header(request)?.0.length).ok()?
        };
        request.get(length.checked_next_multiple_of(ALIGN)?..)
    }
}

/// `NLMSGERR_ATTR_MSG` among the attributes of an extended acknowledgement.
fn text(mut attributes: &[u8]) -> Option<String> {
    loop {
        let (length, rest) = attributes.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let value = attributes.get(ALIGN..length)?;
        if u16::from_ne_bytes(*kind) & NLA_TYPE_MASK == NLMSGERR_ATTR_MSG {
            let value = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        attributes = attributes.get(length.next_multiple_of(ALIGN)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's answer to `ipvsadm -D -t 192.0.2.99:80` on Linux 6.12.117: `ESRCH`, capped, no words.
    const ESRCH: [u8; 36] = [
        0x24, 0, 0, 0, 2, 0, 0, 1, 7, 0, 0, 0, 9, 0, 0, 0, 0xfd, 0xff, 0xff, 0xff, 0x4c, 0, 0, 0,
        0x22, 0, 5, 0, 7, 0, 0, 0, 9, 0, 0, 0,
    ];

    fn with_words(flags: u16, request: &[u8], words: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend(9_u32.to_ne_bytes());
        bytes.extend((-22_i32).to_ne_bytes());
        bytes.extend(request);
        bytes.extend(words);
        let length = u32::try_from(bytes.len()).unwrap();
        bytes.splice(..4, length.to_ne_bytes());
        bytes
    }

    fn only(bytes: &[u8]) -> Kind {
        let answers: Vec<_> = answers(bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(answers.len(), 1);
        answers[0].kind().unwrap()
    }

    #[test]
    fn a_refusal_without_words_keeps_its_errno() {
        assert_eq!(
            only(&ESRCH),
            Kind::Outcome(Err(Rejection {
                errno: 3,
                text: None
            }))
        );
    }

    #[test]
    fn the_kernels_words_are_found_behind_a_capped_and_a_whole_request() {
        // offset attribute (8 bytes), then the message "no"
        let words = [8, 0, 2, 0, 16, 0, 0, 0, 7, 0, 1, 0, b'n', b'o', 0, 0];
        let header = [24, 0, 0, 0, 0x22, 0, 5, 0, 1, 0, 0, 0, 9, 0, 0, 0];
        let whole = [&header[..], &[0; 8]].concat();
        for (flags, request) in [
            (NLM_F_ACK_TLVS | NLM_F_CAPPED, &header[..]),
            (NLM_F_ACK_TLVS, &whole),
        ] {
            assert_eq!(
                only(&with_words(flags, request, &words)),
                Kind::Outcome(Err(Rejection {
                    errno: 22,
                    text: Some("no".into())
                }))
            );
        }
    }

    #[test]
    fn no_prefix_and_no_changed_byte_of_an_answer_panics() {
        let words = [7, 0, 1, 0, b'n', b'o', 0, 0];
        let bytes = with_words(NLM_F_ACK_TLVS | NLM_F_CAPPED, &[0; 16], &words);
        let look = |bytes: &[u8]| {
            for answer in answers(bytes) {
                let _seen = answer.map(|answer| answer.kind());
            }
        };
        for end in 0..bytes.len() {
            look(&bytes[..end]);
        }
        for at in 0..bytes.len() {
            for value in 0..=u8::MAX {
                let mut changed = bytes.clone();
                changed[at] = value;
                look(&changed);
            }
        }
    }
}
