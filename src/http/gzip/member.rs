//! A gzip member that joins separately deflated chunks.

use std::cell::RefCell;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use axum::body::{Body, Bytes};
use flate2::{Compress, Compression, FlushCompress, Status};
use futures_util::stream::{self, Stream, StreamExt as _};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::http::body::RenderError;
use crate::scrape::ExporterMetrics;

/// Compression level. Level 1 compresses metrics to a tenth of their size. Level 6 achieves a sixteenth, but takes
/// three times as long.
const LEVEL: u32 = 1;

/// Size of the compressor's output buffer. Most compressed frames fit in it.
pub(super) const OUTPUT_BYTES: usize = 64 * 1024;

/// Header of a gzip member: magic number, method deflate, no flags, no time, no compression hint, unknown system.
const HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Key of [`digest`]. It is random, so that nobody can construct two texts with the same digest.
static DIGEST_KEY: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

/// Keyed digest of uncompressed text.
pub(super) type Digest = u128;

pub(super) fn digest(text: &[u8]) -> Digest {
    xxh3_128_with_seed(text, *DIGEST_KEY)
}

/// Checksum and length of uncompressed text, as in the trailer of a member.
#[derive(Clone, Debug, Default)]
pub(super) struct Checksum {
    crc: crc32fast::Hasher,
    /// Length modulo 2³².
    length: u32,
}

impl Checksum {
    /// Adds the checksum of the text that follows. This takes longer than sending a small chunk, so it is done only
    /// once for each cached chunk, rather than for every scraper.
    pub(super) fn add(&mut self, other: &Self) {
        self.crc.combine(&other.crc);
        self.length = self.length.wrapping_add(other.length);
    }
}

/// A deflated part of the text.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) deflated: Bytes,
    pub(super) checksum: Checksum,
}

impl Chunk {
    /// Deflates text. With `FlushCompress::Sync`, the output ends at a byte boundary. With `FlushCompress::Finish`, the
    /// output also ends the deflate stream.
    pub(super) fn new(text: &[u8], flush: FlushCompress) -> Result<Self, RenderError> {
        let mut crc = crc32fast::Hasher::new();
        crc.update(text);
        let deflated = DEFLATER.with_borrow_mut(|deflater| deflater.deflate(text, flush))?;
        let length = u64::try_from(text.len()).map_err(|_| RenderError)?;
        Ok(Self {
            deflated: deflated.into(),
            checksum: Checksum {
                crc,
                length: u32::try_from(length % (1 << 32)).map_err(|_| RenderError)?,
            },
        })
    }
}

/// Returns a body with `chunks` between the two parts of the exporter's own metrics. Each chunk comes with the checksum
/// of all chunks up to and including this chunk.
pub(super) fn body(
    exporter_metrics: &ExporterMetrics,
    chunks: impl Stream<Item = Result<(Bytes, Checksum), RenderError>> + Send + 'static,
) -> Result<Body, RenderError> {
    let head = Chunk::new(&exporter_metrics.head, FlushCompress::Sync)?;
    let tail = Chunk::new(&exporter_metrics.tail, FlushCompress::Finish)?;
    let start = Bytes::from([HEADER, &head.deflated].concat());
    let mut checksum_of_chunks = Checksum::default();
    let rest = chunks
        .map(Some)
        .chain(stream::iter([None]))
        .map(move |chunk| match chunk {
            Some(chunk) => chunk.map(|(deflated, checksum)| {
                checksum_of_chunks = checksum;
                deflated
            }),
            None => {
                let mut checksum = head.checksum.clone();
                checksum.add(&checksum_of_chunks);
                checksum.add(&tail.checksum);
                let [crc, length] = [checksum.crc.finalize().to_le_bytes(), checksum.length.to_le_bytes()];
                Ok(Bytes::from([&tail.deflated, &crc[..], &length[..]].concat()))
            }
        });
    Ok(Body::from_stream(stream::iter([Ok(start)]).chain(rest)))
}

/// A compressor with its output buffer. Creating a compressor takes a tenth of the time needed to deflate a chunk, so
/// each thread reuses its compressor.
struct Deflater {
    compress: Compress,
    output: Vec<u8>,
}

thread_local! {
    static DEFLATER: RefCell<Deflater> = RefCell::new(Deflater {
        compress: Compress::new(Compression::new(LEVEL), false),
        output: vec![0; OUTPUT_BYTES],
    });
}

impl Deflater {
    fn deflate(&mut self, text: &[u8], flush: FlushCompress) -> Result<Vec<u8>, RenderError> {
        let Self { compress, output } = self;
        compress.reset();
        let mut deflated = Vec::new();
        let mut rest = text;
        loop {
            let (read, written) = (compress.total_in(), compress.total_out());
            let status = compress.compress(rest, output, flush).map_err(|_| RenderError)?;
            let read = usize::try_from(compress.total_in() - read).map_err(|_| RenderError)?;
            let written = usize::try_from(compress.total_out() - written).map_err(|_| RenderError)?;
            rest = rest.get(read..).unwrap_or_default();
            let filled = output.get(..written).unwrap_or_default();
            if deflated.is_empty() {
                deflated.reserve_exact(written);
            }
            deflated.extend_from_slice(filled);
            let flushed = rest.is_empty() && written < output.len();
            match (status, flush) {
                (Status::StreamEnd, _) => return Ok(deflated),
                (_, FlushCompress::Finish) => {}
                _ if flushed => return Ok(deflated),
                _ => {}
            }
            if read == 0 && written == 0 {
                return Err(RenderError);
            }
        }
    }
}
