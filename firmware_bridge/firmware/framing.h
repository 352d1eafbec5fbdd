/* Bytes <-> packets: COBS, CRC-32, header. Any byte stream gives packets or counted errors. Mirrors firmware_bridge/framing.py. */
#ifndef FRAMING_H
#define FRAMING_H

#include "robot_spec.h"
#include "messages.h"

#define MAX_CODED_BYTES (MAX_PACKET_BYTES + 1)
#define MAX_PAYLOAD_BYTES (MAX_PACKET_BYTES - HEADER_BYTES - CRC_BYTES)

_Static_assert(sizeof(struct msg_telemetry) <= MAX_PAYLOAD_BYTES, "the robot file has more joints and extras than one packet holds");
_Static_assert(sizeof SPEC_TEXT - 1 <= 0xffff, "the robot's facts are longer than SPEC_TEXT can count");

struct frame_errors {
    uint32_t length, cobs, crc, protocol, flags, message, payload;
};

struct deframer {
    uint8_t coded[MAX_CODED_BYTES];
    uint32_t filled; /* counts on past the end of `coded`, so that a frame that is too long is known to be */
    struct frame_errors errors;
};

struct packet {
    struct header header;
    const uint8_t *payload; /* valid until the next byte is fed */
    uint32_t payload_bytes;
};

/* 1 where both hold the same bytes: what little of libc the core needs beyond memcpy and memset. */
int same(const void *left, const void *right, uint32_t length);
uint32_t crc32(uint32_t seed, const uint8_t *data, uint32_t length);
/* 1 when this byte ended a good packet. */
int deframe(struct deframer *deframer, uint8_t byte, struct packet *packet);
/* Writes one frame, delimiter included; returns its bytes, 0 for too long a payload. `out` holds at least MAX_CODED_BYTES + 1. */
uint32_t enframe(uint8_t *out, uint8_t message, uint16_t seq, uint32_t t_mcu_us, const void *payload, uint32_t payload_bytes);
/* 1 where `seq` was counted after `than`; both wrap. */
int is_newer(uint16_t seq, uint16_t than);
uint32_t frame_errors_total(const struct frame_errors *errors);

#endif
