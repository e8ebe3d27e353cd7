//! One gzip member, joined from chunks that were deflated separately.

use std::cell::RefCell;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use axum::body::{Body, Bytes};
use flate2::{Compress, Compression, FlushCompress, Status};
use futures_util::stream::{self, Stream, StreamExt as _};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::http::body::Broken;
use crate::scrape::ExporterMetrics;

/// Compression level. Level 1 shrinks metrics to a tenth; level 6 to a sixteenth in three times as long.
const LEVEL: u32 = 1;

/// Size of the output buffer of a chunk; the output of most frames of metrics fits.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// Header of a gzip member: magic number, deflate, no flags, no time, no hint about the compression level, unknown
/// system.
const HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Key of the 128-bit digests that distinguish texts. It is random, so that no names can be constructed for which two
/// texts have the same digest.
static DIGEST_KEY: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

/// Digest of a text.
pub(super) type Digest = u128;

pub(super) fn digest(text: &[u8]) -> Digest {
    xxh3_128_with_seed(text, *DIGEST_KEY)
}

/// Checksum and length of a text, as in the trailer of a member.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    checksum: crc32fast::Hasher,
    /// Length modulo 2³².
    length: u32,
}

impl Sum {
    /// Appends a text. Combining checksums takes longer than sending a small chunk, so it is done once per chunk and
    /// not again for each scraper.
    pub(super) fn add(&mut self, other: &Self) {
        self.checksum.combine(&other.checksum);
        self.length = self.length.wrapping_add(other.length);
    }
}

/// A deflated piece of text.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) deflated: Bytes,
    pub(super) sum: Sum,
}

impl Chunk {
    /// Deflates a text separately, up to a byte boundary or to the end of the member.
    pub(super) fn new(text: &[u8], flush: FlushCompress) -> Result<Self, Broken> {
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(text);
        let deflated = DEFLATER.with_borrow_mut(|deflater| deflater.deflate(text, flush))?;
        let length = u64::try_from(text.len()).map_err(|_| Broken)?;
        Ok(Self {
            deflated: deflated.into(),
            sum: Sum {
                checksum,
                length: u32::try_from(length % (1 << 32)).map_err(|_| Broken)?,
            },
        })
    }
}

/// Returns a body of these chunks, between the exporter's own metrics. Each chunk comes with the sum of all chunks up to
/// it.
pub(super) fn body(
    exporter_metrics: &ExporterMetrics,
    chunks: impl Stream<Item = Result<(Bytes, Sum), Broken>> + Send + 'static,
) -> Result<Body, Broken> {
    let head = Chunk::new(&exporter_metrics.head, FlushCompress::Sync)?;
    let tail = Chunk::new(&exporter_metrics.tail, FlushCompress::Finish)?;
    let begun = Bytes::from([HEADER, &head.deflated].concat());
    let mut sum_of_chunks = Sum::default();
    let rest = chunks
        .map(Some)
        .chain(stream::iter([None]))
        .map(move |chunk| match chunk {
            Some(chunk) => chunk.map(|(deflated, sum)| {
                sum_of_chunks = sum;
                deflated
            }),
            None => {
                let mut sum = head.sum.clone();
                sum.add(&sum_of_chunks);
                sum.add(&tail.sum);
                let [checksum, length] = [sum.checksum.finalize().to_le_bytes(), sum.length.to_le_bytes()];
                Ok(Bytes::from([&tail.deflated, &checksum[..], &length[..]].concat()))
            }
        });
    Ok(Body::from_stream(stream::iter([Ok(begun)]).chain(rest)))
}

/// A compressor with its output buffer. Creating one costs a tenth of deflating a chunk, so each thread keeps its own.
struct Deflater {
    compress: Compress,
    piece: Vec<u8>,
}

thread_local! {
    static DEFLATER: RefCell<Deflater> = RefCell::new(Deflater {
        compress: Compress::new(Compression::new(LEVEL), false),
        piece: vec![0; PIECE_BYTES],
    });
}

impl Deflater {
    fn deflate(&mut self, text: &[u8], flush: FlushCompress) -> Result<Vec<u8>, Broken> {
        let Self { compress, piece } = self;
        compress.reset();
        let mut deflated = Vec::new();
        let mut rest = text;
        loop {
            let (read, written) = (compress.total_in(), compress.total_out());
            let status = compress.compress(rest, piece, flush).map_err(|_| Broken)?;
            let read = usize::try_from(compress.total_in() - read).map_err(|_| Broken)?;
            let written = usize::try_from(compress.total_out() - written).map_err(|_| Broken)?;
            rest = rest.get(read..).unwrap_or_default();
            let filled = piece.get(..written).unwrap_or_default();
            if deflated.is_empty() {
                deflated.reserve_exact(written);
            }
            deflated.extend_from_slice(filled);
            let flushed = rest.is_empty() && written < piece.len();
            match (status, flush) {
                (Status::StreamEnd, _) => return Ok(deflated),
                (_, FlushCompress::Finish) => {}
                _ if flushed => return Ok(deflated),
                _ => {}
            }
            if read == 0 && written == 0 {
                return Err(Broken);
            }
        }
    }
}
