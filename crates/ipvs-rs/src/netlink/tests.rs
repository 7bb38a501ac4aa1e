use netlink_packet_core::NLM_F_CREATE;

use super::*;

#[test]
fn a_send_pads_its_messages_and_asks_for_the_last_answer_only() {
    let mut sequence = 41;
    let mut send = Outgoing::new(7, &mut sequence);
    for payload in [vec![1, 2, 3], vec![4]] {
        send.push(
            &RawMessage {
                message_type: 0x22,
                payload,
            },
            NLM_F_REQUEST | NLM_F_CREATE,
        );
    }
    send.acknowledge_last();
    #[rustfmt::skip]
    let expected = [
        19, 0, 0, 0, 0x22, 0, 1, 4, 42, 0, 0, 0, 7, 0, 0, 0, 1, 2, 3, 0,
        17, 0, 0, 0, 0x22, 0, 5, 4, 43, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0,
    ];
    assert_eq!(send.bytes, expected);
    assert_eq!(sequence, 43);
}

#[test]
fn answers_to_others_are_nobodys() {
    let mut sequence = u32::MAX;
    let mut send = Outgoing::new(7, &mut sequence);
    for _ in 0..2 {
        send.push(
            &RawMessage {
                message_type: 0x22,
                payload: Vec::new(),
            },
            NLM_F_REQUEST,
        );
    }
    let at = |sequence, port| {
        let mut header = NetlinkHeader::default();
        header.sequence_number = sequence;
        header.port_number = port;
        send.position(&header)
    };
    assert_eq!(at(0, 7), Some(0), "sequence numbers wrap");
    assert_eq!(at(1, 7), Some(1));
    assert_eq!(at(2, 7), None, "of the future");
    assert_eq!(at(u32::MAX, 7), None, "stale");
    assert_eq!(at(0, 8), None, "another socket's");
}
