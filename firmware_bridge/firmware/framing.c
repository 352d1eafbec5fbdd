#include "framing.h"

#include <string.h>

/* CRC-32 (IEEE), four bits at a time: 64 bytes of table instead of 1 KiB. */
static const uint32_t CRC_NIBBLE[16] = {
    0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
    0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
};

int same(const void *left, const void *right, uint32_t length) {
    const uint8_t *a = left, *b = right;
    for (uint32_t i = 0; i < length; i++)
        if (a[i] != b[i]) return 0;
    return 1;
}

uint32_t crc32(uint32_t seed, const uint8_t *data, uint32_t length) {
    uint32_t crc = ~seed;
    for (uint32_t i = 0; i < length; i++) {
        crc ^= data[i];
        crc = (crc >> 4) ^ CRC_NIBBLE[crc & 15u];
        crc = (crc >> 4) ^ CRC_NIBBLE[crc & 15u];
    }
    return ~crc;
}

static uint32_t seed_of(uint8_t message) { return message < MESSAGE_IDS && (OPEN_MESSAGES >> message & 1u) ? OPEN_SEED : CLOSED_SEED; }

/* In place; the decoded bytes never overtake the coded ones. Returns -1 for what is not COBS. */
static int32_t cobs_decode(uint8_t *data, uint32_t length) {
    uint32_t in = 0, out = 0;
    while (in < length) {
        uint32_t code = data[in++];
        if (code == 0 || in + code - 1 > length) return -1;
        for (uint32_t i = 1; i < code; i++) data[out++] = data[in++];
        if (code < 255 && in < length) data[out++] = 0;
    }
    return (int32_t)out;
}

static uint32_t cobs_encode(uint8_t *out, const uint8_t *data, uint32_t length) {
    uint32_t at = 1, code_at = 0;
    uint8_t code = 1;
    for (uint32_t i = 0; i < length; i++) {
        if (data[i] != 0) {
            out[at++] = data[i];
            code++;
        }
        if (data[i] == 0 || code == 255) {
            out[code_at] = code;
            code = 1;
            code_at = at;
            /* A full block at the very end needs no further code byte. */
            if (data[i] == 0 || i + 1 < length) at++;
            else return at;
        }
    }
    out[code_at] = code;
    return at;
}

static int check(struct deframer *deframer, uint32_t length, struct packet *packet) {
    struct frame_errors *errors = &deframer->errors;
    if (length > MAX_CODED_BYTES) return errors->length++, 0;
    int32_t raw = cobs_decode(deframer->coded, length);
    if (raw < 0) return errors->cobs++, 0;
    int32_t payload = raw - HEADER_BYTES - CRC_BYTES;
    if (payload < 0) return errors->length++, 0;
    memcpy(&packet->header, deframer->coded, HEADER_BYTES);
    uint32_t sent;
    memcpy(&sent, deframer->coded + raw - CRC_BYTES, CRC_BYTES);
    if (crc32(seed_of(packet->header.message), deframer->coded, (uint32_t)raw - CRC_BYTES) != sent) return errors->crc++, 0;
    /* A HELLO of another protocol is let through: it is how two strangers find out. */
    int ours = packet->header.protocol == PROTOCOL_MAJOR;
    if (!ours && packet->header.message != MSG_HELLO) return errors->protocol++, 0;
    if (packet->header.flags != 0) return errors->flags++, 0;
    int32_t expected = packet->header.message < MESSAGE_IDS ? PAYLOAD_BYTES[packet->header.message] : -1;
    if (expected < 0) return errors->message++, 0;
    if (ours && payload != expected) return errors->payload++, 0;
    packet->payload = deframer->coded + HEADER_BYTES;
    packet->payload_bytes = (uint32_t)payload;
    return 1;
}

int deframe(struct deframer *deframer, uint8_t byte, struct packet *packet) {
    if (byte != 0) {
        if (deframer->filled < MAX_CODED_BYTES) deframer->coded[deframer->filled] = byte;
        if (deframer->filled <= MAX_CODED_BYTES) deframer->filled++;
        return 0;
    }
    uint32_t length = deframer->filled;
    deframer->filled = 0;
    return length > 0 && check(deframer, length, packet);
}

uint32_t enframe(uint8_t *out, uint8_t message, uint16_t seq, uint32_t t_mcu_us, const void *payload, uint32_t payload_bytes) {
    uint8_t raw[MAX_PACKET_BYTES];
    if (payload_bytes > MAX_PAYLOAD_BYTES) return 0;
    struct header header = {PROTOCOL_MAJOR, message, seq, 0, t_mcu_us};
    memcpy(raw, &header, HEADER_BYTES);
    if (payload_bytes > 0) memcpy(raw + HEADER_BYTES, payload, payload_bytes);
    uint32_t length = HEADER_BYTES + payload_bytes;
    uint32_t crc = crc32(seed_of(message), raw, length);
    memcpy(raw + length, &crc, CRC_BYTES);
    length = cobs_encode(out, raw, length + CRC_BYTES);
    out[length] = 0;
    return length + 1;
}

int is_newer(uint16_t seq, uint16_t than) { return (int16_t)(uint16_t)(seq - than) > 0; }

uint32_t frame_errors_total(const struct frame_errors *e) {
    return e->length + e->cobs + e->crc + e->protocol + e->flags + e->message + e->payload;
}
