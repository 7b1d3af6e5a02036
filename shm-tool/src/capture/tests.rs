use super::link::Skipped;
use super::*;
use lb_core::wire::Packet;
use proptest::prelude::*;

const ORDERS: [ByteOrder; 2] = [ByteOrder::Little, ByteOrder::Big];

impl ByteOrder {
    fn bytes16(self, number: u16) -> [u8; 2] {
        match self {
            ByteOrder::Little => number.to_le_bytes(),
            ByteOrder::Big => number.to_be_bytes(),
        }
    }

    fn bytes32(self, number: u32) -> [u8; 4] {
        match self {
            ByteOrder::Little => number.to_le_bytes(),
            ByteOrder::Big => number.to_be_bytes(),
        }
    }

    fn all32(self, numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| self.bytes32(*number)).collect()
    }
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

/// A classic file of packets with the lengths that they had.
fn pcap(order: ByteOrder, magic: u32, link: u32, packets: &[(&[u8], u32)]) -> Vec<u8> {
    let mut file = order.bytes32(magic).to_vec();
    file.extend([order.bytes16(2), order.bytes16(4)].concat());
    file.extend(order.all32(&[0, 0, 65_535, link]));
    for (bytes, full_len) in packets {
        file.extend(order.all32(&[1_700_000_000, 5, len(bytes), *full_len]));
        file.extend(*bytes);
    }
    file
}

fn block(order: ByteOrder, kind: u32, content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    content.resize(content.len().next_multiple_of(4), 0);
    let around = order.bytes32(len(&content) + 12);
    [&order.bytes32(kind), &around, content.as_slice(), &around].concat()
}

fn section(order: ByteOrder) -> Vec<u8> {
    let version = [order.bytes16(1), order.bytes16(0)].concat();
    let content = [&order.bytes32(0x1a2b_3c4d), version.as_slice(), &[0xff; 8]].concat();
    block(order, 0x0a0d_0d0a, &content)
}

fn interface(order: ByteOrder, link: u16, most: u32) -> Vec<u8> {
    let content = [&order.bytes16(link), [0; 2].as_slice(), &order.bytes32(most)].concat();
    block(order, 1, &content)
}

fn packet_block(order: ByteOrder, interface: u32, bytes: &[u8], full_len: u32) -> Vec<u8> {
    let head = order.all32(&[interface, 1, 2, len(bytes), full_len]);
    let mut content = [head.as_slice(), bytes].concat();
    content.resize(content.len().next_multiple_of(4), 0);
    // An option: a comment.
    content.extend([order.bytes16(1), order.bytes16(2)].concat());
    content.extend(b"hi\0\0");
    block(order, 6, &content)
}

/// What a frame says: bytes, full length, link type, offset.
type Seen = (Vec<u8>, usize, LinkType, u64);

fn read(file: &[u8]) -> (Vec<Seen>, Option<CaptureError>) {
    let mut seen = Vec::new();
    let mut capture = match Capture::open(file) {
        Ok(capture) => capture,
        Err(error) => return (seen, Some(error)),
    };
    loop {
        match capture.next() {
            Ok(Some(frame)) => {
                seen.push((frame.bytes.to_vec(), frame.full_len, frame.link, frame.offset));
            }
            Ok(None) => return (seen, None),
            Err(error) => return (seen, Some(error)),
        }
    }
}

fn error(file: &[u8]) -> String {
    read(file).1.expect("it is malformed").to_string()
}

#[test]
fn classic_files_of_both_orders_and_resolutions() {
    for order in ORDERS {
        for magic in [0xa1b2_c3d4, 0xa1b2_3c4d] {
            let file = pcap(order, magic, 101, &[(&[1, 2, 3], 3), (&[], 0), (&[4], 1500)]);
            let (seen, error) = read(&file);
            assert!(error.is_none(), "{error:?}");
            let ip = LinkType::Ip;
            let expected =
                [(vec![1, 2, 3], 3, ip, 24), (vec![], 0, ip, 43), (vec![4], 1500, ip, 59)];
            assert_eq!(seen, expected);
        }
    }
    // About check sums in the upper half of the link type.
    assert_eq!(read(&pcap(ByteOrder::Big, 0xa1b2_c3d4, 0x5400_0001, &[(&[1], 1)])).0.len(), 1);
}

#[test]
fn sections_interfaces_and_three_kinds_of_packets() {
    for order in ORDERS {
        let other = if order == ByteOrder::Big { ByteOrder::Little } else { ByteOrder::Big };
        let old = [
            [order.bytes16(1), order.bytes16(0)].concat(),
            order.all32(&[1, 2, 2, 60]),
            vec![7, 8, 0, 0],
        ];
        let simple = [order.all32(&[9]), vec![1, 2, 3, 4, 0, 0, 0, 0]].concat();
        let parts = [
            section(order),
            interface(order, 1, 0),
            interface(order, 101, 0),
            block(order, 5, &[9; 20]), // statistics, passed over
            packet_block(order, 1, &[1, 2, 3], 1500),
            block(order, 2, &old.concat()),
            section(other),
            block(other, 0x8000_0bad, b"private"),
            interface(other, 113, 0),
            packet_block(other, 0, &[4, 5], 2),
            section(order),
            interface(order, 229, 4),
            block(order, 3, &simple),
        ];
        let (seen, error) = read(&parts.concat());
        assert!(error.is_none(), "{error:?}");
        let offset = |part: usize| parts[..part].iter().map(Vec::len).sum::<usize>() as u64;
        let expected = [
            (vec![1, 2, 3], 1500, LinkType::Ip, offset(4)),
            (vec![7, 8], 60, LinkType::Ip, offset(5)),
            (vec![4, 5], 2, LinkType::LinuxCooked, offset(9)),
            (vec![1, 2, 3, 4], 9, LinkType::Ip, offset(12)),
        ];
        assert_eq!(seen, expected);
    }
}

/// Of a simple packet nothing tells how much was captured but the interface and the block.
#[test]
fn a_simple_packet_is_as_long_as_its_block_allows() {
    let order = ByteOrder::Little;
    for (most, full_len, captured) in [(0, 3, 3), (0, 1500, 8), (6, 1500, 6), (6, 5, 5)] {
        let simple = [order.all32(&[full_len]), vec![1, 2, 3, 4, 5, 6, 7, 8]].concat();
        let parts = [section(order), interface(order, 101, most), block(order, 3, &simple)];
        let (seen, error) = read(&parts.concat());
        assert!(error.is_none(), "{error:?}");
        let expected: Vec<u8> = (1..=captured).collect();
        assert_eq!((&seen[0].0, seen[0].1), (&expected, full_len as usize));
    }
}

#[test]
fn every_truncation_names_where_and_tells_what_came_before() {
    let order = ByteOrder::Little;
    let classic = pcap(order, 0xa1b2_c3d4, 101, &[(&[1, 2, 3], 3), (&[4, 5], 9)]);
    let blocks = [
        section(order),
        interface(order, 101, 0),
        packet_block(order, 0, &[1, 2, 3], 3),
        packet_block(order, 0, &[4, 5], 9),
    ];
    // Where a file may end, and how many packets there are by then.
    let mut ends: Vec<(usize, usize)> = vec![];
    for (number, part) in blocks.iter().enumerate() {
        ends.push((ends.last().map_or(0, |end| end.0) + part.len(), number.saturating_sub(1)));
    }
    let ends_of_classic = vec![(24, 0), (43, 1), (61, 2)];
    for (file, ends) in [(classic, ends_of_classic), (blocks.concat(), ends)] {
        assert_eq!(file.len(), ends.last().unwrap().0);
        for cut in 0..file.len() {
            let (seen, error) = read(&file[..cut]);
            let complete = ends.iter().rev().find(|(end, _)| *end <= cut);
            assert_eq!(seen.len(), complete.map_or(0, |end| end.1), "{cut}");
            match error {
                None => assert!(ends.iter().any(|(end, _)| *end == cut), "{cut}"),
                Some(CaptureError { offset, cause: Cause::Truncated(_) }) => {
                    assert!(!ends.iter().any(|(end, _)| *end == cut), "{cut}");
                    // In the record or block that is cut.
                    let begins = complete.map_or(0, |end| end.0 as u64);
                    assert!((begins..=cut as u64).contains(&offset), "{cut}: {offset}");
                }
                Some(other) => panic!("{cut}: {other}"),
            }
        }
    }
}

#[test]
fn what_is_malformed_is_named_with_its_offset() {
    let order = ByteOrder::Little;
    let classic = |link| pcap(order, 0xa1b2_c3d4, link, &[]);
    assert_eq!(error(&[]), "offset 0: the file ends inside the file header");
    assert_eq!(
        error(b"\x7fELF, and so on"),
        "offset 0: neither pcap nor pcapng: it begins with 0x7f454c46"
    );
    let mut version = classic(1);
    version[4] = 3;
    assert_eq!(error(&version), "offset 4: unknown version 3.4");
    assert_eq!(
        error(&classic(105)),
        "offset 20: link type 105 is not supported; supported are Ethernet (1), raw IP (12, 101, \
         228, 229), Linux cooked (113, 276) and loopback (0, 108)"
    );
    let huge = [classic(1), order.all32(&[0, 0, 0xffff_fff0, 9])].concat();
    assert_eq!(
        error(&huge),
        "offset 24: a packet of 4294967280 bytes cannot be: more than 16777216"
    );

    let mut no_order = section(order);
    no_order[8] = 0;
    assert_eq!(error(&no_order), "offset 0: 0x003c2b1a is no byte order");
    let mut version = section(order);
    version[12] = 2;
    assert_eq!(error(&version), "offset 0: unknown version 2.0");
    let behind = |parts: &[Vec<u8>]| error(&[section(order), parts.concat()].concat());
    let described = interface(order, 101, 0);
    for len in [0, 8, 14] {
        let mut block = block(order, 9, &[0; 8]);
        block[4] = len;
        assert_eq!(behind(&[block]), format!("offset 28: a block of {len} bytes cannot be"));
    }
    let mut end = block(order, 9, &[0; 8]);
    end[16] = 24;
    assert_eq!(
        behind(&[end]),
        "offset 28: the block begins with length 20 and ends with length 24"
    );
    assert_eq!(behind(&[interface(order, 147, 0)])[..30], *"offset 28: link type 147 is no");
    assert_eq!(
        behind(&[packet_block(order, 0, &[1], 1)]),
        "offset 28: a packet of interface 0, which was not described"
    );
    assert_eq!(
        behind(&[described.clone(), packet_block(order, 7, &[1], 1)]),
        "offset 48: a packet of interface 7, which was not described"
    );
    let mut larger = packet_block(order, 0, &[1], 1);
    larger[20] = 200;
    assert_eq!(
        behind(&[described.clone(), larger]),
        "offset 48: a packet of 200 bytes does not fit into its block"
    );
    assert_eq!(
        behind(&[described.clone(), block(order, 6, &[0; 16])]),
        "offset 48: a block of 28 bytes cannot be"
    );
    assert_eq!(
        behind(&[described.repeat(MAX_INTERFACES + 1)]),
        format!("offset {}: more than 65536 interfaces", 28 + 20 * MAX_INTERFACES)
    );
    // A section forgets the interfaces of the one before.
    assert_eq!(
        behind(&[described, section(order), packet_block(order, 0, &[1], 1)]),
        "offset 76: a packet of interface 0, which was not described"
    );
}

/// A reader that hands out one byte at a time and fails in the end.
struct Slow<'a>(&'a [u8], bool);

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        match self.0 {
            _ if self.1 => Err(io::ErrorKind::Interrupted.into()),
            [] => Err(io::Error::other("out of order")),
            [first, rest @ ..] => {
                into[0] = *first;
                self.0 = rest;
                Ok(1)
            }
        }
    }
}

#[test]
fn a_slow_reader_gives_the_same_and_its_error_is_told() {
    let file = pcap(ByteOrder::Big, 0xa1b2_c3d4, 101, &[(&[1, 2, 3], 3)]);
    let mut capture = Capture::open(Slow(&file, false)).unwrap_or_else(|error| panic!("{error}"));
    assert!(capture.is_drained());
    let frame = capture.next().unwrap().unwrap();
    assert_eq!((frame.bytes, frame.full_len), ([1, 2, 3].as_slice(), 3));
    assert_eq!(capture.next().unwrap_err().to_string(), "offset 43: out of order");
}

#[test]
fn of_a_large_packet_the_beginning_is_kept() {
    let large = vec![7; 3 << 20];
    let order = ByteOrder::Little;
    let parts = [section(order), interface(order, 101, 0), packet_block(order, 0, &large, 9 << 20)];
    let packets: &[(&[u8], u32)] = &[(&large, 9 << 20), (&[1], 1)];
    for (file, more) in [(pcap(order, 0xa1b2_c3d4, 101, packets), true), (parts.concat(), false)] {
        let (seen, error) = read(&file);
        assert!(error.is_none(), "{error:?}");
        assert_eq!((seen[0].0.len(), seen[0].1), (KEPT, 9 << 20));
        assert_eq!(seen.get(1).map(|seen| &seen.0[..]), more.then_some([1].as_slice()));
    }
}

// ---- Link headers

const IP: [u8; 3] = [0x45, 1, 2];

fn ip_of(link: u32, head: &[u8]) -> Result<(Vec<u8>, usize), Skipped> {
    let bytes = [head, &IP].concat();
    let full_len = bytes.len() + 100;
    let link = LinkType::new(link).unwrap();
    let frame = Frame { bytes: &bytes, full_len, link, offset: 0 };
    frame.ip().map(|packet: Packet<'_>| (packet.bytes().to_vec(), packet.full_len()))
}

#[test]
fn the_ip_packet_behind_every_link_header() {
    let ethernet = [0xaa; 12];
    let cooked = [0xbb; 14];
    let tags: [&[u8]; 4] =
        [&[], &[0x81, 0, 0, 5], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6], &[0x91, 0, 0, 5]];
    for ether_type in [[0x08, 0x00], [0x86, 0xdd]] {
        for tag in tags {
            for (link, head) in [
                (1, [&ethernet, tag, &ether_type].concat()),
                (113, [&cooked, tag, &ether_type].concat()),
            ] {
                assert_eq!(ip_of(link, &head), Ok((IP.to_vec(), 103)), "{head:x?}");
            }
        }
        let cooked2 = [ether_type.as_slice(), &[0xcc; 18]].concat();
        assert_eq!(ip_of(276, &cooked2), Ok((IP.to_vec(), 103)));
        let tagged = [&[0x81, 0], [0xcc; 18].as_slice(), &[0, 5], &ether_type].concat();
        assert_eq!(ip_of(276, &tagged), Ok((IP.to_vec(), 103)));
    }
    for link in [12, 101, 228, 229] {
        assert_eq!(ip_of(link, &[]), Ok((IP.to_vec(), 103)));
    }
    for link in [0, 108] {
        for family in [2u32, 10, 24, 28, 30] {
            assert_eq!(ip_of(link, &family.to_le_bytes()), Ok((IP.to_vec(), 103)));
            assert_eq!(ip_of(link, &family.to_be_bytes()), Ok((IP.to_vec(), 103)));
        }
    }
}

#[test]
fn what_is_not_ip_is_passed_over_with_the_reason() {
    let arp = [[0xaa; 12].as_slice(), &[0x08, 0x06]].concat();
    assert_eq!(ip_of(1, &arp), Err(Skipped::EtherType(0x806)));
    assert_eq!(Skipped::EtherType(0x806).to_string(), "not IP: EtherType 0x0806");
    let tagged = [[0xaa; 12].as_slice(), &[0x81, 0, 0, 1, 0x08, 0x06]].concat();
    assert_eq!(ip_of(1, &tagged), Err(Skipped::EtherType(0x806)));
    assert_eq!(ip_of(0, &[0, 0, 0, 17]), Err(Skipped::Family(17)));
    // Nothing but tags.
    let bytes = [0x81, 0].repeat(40);
    let tags = Frame { bytes: &bytes, full_len: 80, link: LinkType::Ethernet, offset: 0 };
    assert_eq!(tags.ip(), Err(Skipped::Truncated));
}

#[test]
fn every_cut_of_a_link_header_is_told() {
    for (link, head) in [
        (1, [[0xaa; 12].as_slice(), &[0x81, 0, 0, 5, 0x08, 0]].concat()),
        (113, [[0xbb; 14].as_slice(), &[0x08, 0]].concat()),
        (276, [[0x08, 0].as_slice(), &[0xcc; 18]].concat()),
        (108, vec![0, 0, 0, 2]),
    ] {
        let link = LinkType::new(link).unwrap();
        for cut in 0..head.len() {
            let frame = Frame { bytes: &head[..cut], full_len: 60, link, offset: 0 };
            assert_eq!(frame.ip(), Err(Skipped::Truncated), "{cut} of {head:x?}");
        }
        let frame = Frame { bytes: &head, full_len: 60, link, offset: 0 };
        assert_eq!(frame.ip(), Ok(Packet::copied(&[], 60 - head.len())));
    }
}

// ---- Anything

/// Reads to the end whatever the file holds; every packet is at a place of its own.
fn survives(file: &[u8]) -> Result<(), TestCaseError> {
    let Ok(mut capture) = Capture::open(file) else {
        return Ok(());
    };
    let mut last = 0;
    while let Ok(Some(frame)) = capture.next() {
        prop_assert!(frame.offset > last && frame.offset < file.len() as u64);
        prop_assert!(frame.bytes.len() <= frame.full_len && frame.bytes.len() <= file.len());
        last = frame.offset;
        let _ = frame.ip();
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        begin in 0usize..4, bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let order = ORDERS[begin % 2];
        let begin = match begin {
            0 | 1 => pcap(order, 0xa1b2_c3d4, 1, &[]),
            _ => [section(order), interface(order, 1, 0)].concat(),
        };
        survives(&bytes)?;
        survives(&[begin, bytes].concat())?;
    }

    #[test]
    fn no_change_makes_the_reader_panic(
        classic: bool, big: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let order = ORDERS[usize::from(big)];
        let frame = [[0xaa; 12].as_slice(), &[0x81, 0, 0, 5, 0x08, 0, 0x45, 1]].concat();
        let mut file = match classic {
            true => pcap(order, 0xa1b2_c3d4, 1, &[(&frame, 60), (&frame, 20)]),
            false => {
                let simple = [order.all32(&[20]), frame.clone()].concat();
                [
                    section(order),
                    interface(order, 1, 0),
                    packet_block(order, 0, &frame, 60),
                    block(order, 3, &simple),
                ]
                .concat()
            }
        };
        for (at, value) in changes {
            let at = at.index(file.len());
            file[at] = value;
        }
        survives(&file)?;
    }
}
