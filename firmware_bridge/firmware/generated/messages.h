/* Generated from firmware_bridge/messages.py by firmware_bridge/header.py. Do not edit. */
#ifndef MESSAGES_H
#define MESSAGES_H

#include <stdint.h>

#define PROTOCOL_MAJOR 1
#define PROTOCOL_MINOR 0
#define MAX_PACKET_BYTES 254
#define SPEC_CHUNK_BYTES 128
#define HELLO_RETRY_MS 100
#define SILENCE_MS 500
#define NO_READING_I16 -32768
#define HEADER_BYTES 10
#define CRC_BYTES 4
#define OPEN_SEED 0x429916c5u

enum {
    MSG_HELLO = 1,
    MSG_TELEMETRY = 2,
    MSG_COMMAND = 3,
    MSG_HEARTBEAT = 4,
    MSG_ARM = 5,
    MSG_DISARM = 6,
    MSG_ESTOP = 7,
    MSG_ACK = 8,
    MSG_TIME_SYNC = 9,
    MSG_SPEC_READ = 10,
    MSG_SPEC_TEXT = 11,
    MSG_FAULT = 12,
};

enum {
    ROLE_HOST = 0,
    ROLE_BOARD = 1,
};

enum {
    ACK_OK = 0,
    ACK_NOT_GREETED = 1,
    ACK_WRONG_PROTOCOL = 2,
    ACK_WRONG_FINGERPRINT = 3,
    ACK_WRONG_SESSION = 4,
    ACK_FAULT_LATCHED = 5,
    ACK_TILTED = 6,
    ACK_LOW_BATTERY = 7,
    ACK_BAD_SENSOR = 8,
    ACK_ESTOPPED = 9,
};

enum {
    BOARD_DISARMED = 0,
    BOARD_ARMED = 1,
    BOARD_DAMPED = 2,
    BOARD_FALLBACK = 3,
    BOARD_FAULT = 4,
    BOARD_ESTOP = 5,
};

enum {
    LINK_DOWN = 0,
    LINK_GREETING = 1,
    LINK_UP = 2,
    LINK_REFUSED = 3,
};

enum {
    EVENT_START = 0,
    EVENT_HELLO_MATCHES = 1,
    EVENT_HELLO_DIFFERS = 2,
    EVENT_SILENCE = 3,
    EVENT_PORT_GONE = 4,
};

enum {
    FAULT_NONE = 0,
    FAULT_TIMEOUT = 1,
    FAULT_TILT = 2,
    FAULT_BAD_NUMBER = 4,
    FAULT_OVERSPEED = 8,
    FAULT_LOW_BATTERY = 16,
    FAULT_BAD_SENSOR = 32,
    FAULT_LIMITED = 64,
    FAULT_SLEWED = 128,
};

#pragma pack(push, 1)
struct header {
    uint8_t protocol; /* PROTOCOL_MAJOR */
    uint8_t message; /* MessageId */
    uint16_t seq; /* counts this sender's packets, wraps */
    uint16_t flags; /* reserved, 0; anything else is not understood and is dropped */
    uint32_t t_mcu_us; /* board clock at sending, wraps; 0 from the host */
};
_Static_assert(sizeof(struct header) == 10, "header");

struct msg_hello {
    uint8_t role; /* Role of the sender */
    uint8_t minor; /* PROTOCOL_MINOR */
    uint32_t session; /* drawn anew at each boot of the sender */
    uint8_t firmware_fingerprint[8];
    uint8_t model[16]; /* robot model, zero padded */
};
_Static_assert(sizeof(struct msg_hello) == 30, "msg_hello");

struct msg_telemetry {
    uint8_t board; /* BoardMode */
    uint8_t rx_errors; /* packets the board could not use, wraps */
    uint16_t faults; /* Fault bits */
    uint16_t answered_seq; /* seq of the last COMMAND the board accepted */
    int32_t counts[JOINTS]; /* encoder counts, board sign, wraps */
    int32_t velocity_cps[JOINTS]; /* counts per second over the last sensor period */
    int16_t applied[JOINTS]; /* command being driven, 1/32767 of command_limit, board sign */
    int16_t gyro[3]; /* sensor axes; -32768 is no reading, in every i16 field below too */
    int16_t accel[3];
    uint16_t battery;
#if EXTRAS > 0
    int16_t extras[EXTRAS];
#endif
};
_Static_assert(sizeof(struct msg_telemetry) == 20 + 10 * JOINTS + 2 * EXTRAS, "msg_telemetry");

struct msg_command {
    uint16_t answers_seq; /* seq of the TELEMETRY this answers */
    uint32_t deadline_mcu_us; /* not to be obeyed after this instant of the board's clock */
    float command[JOINTS]; /* in command_unit, board sign */
};
_Static_assert(sizeof(struct msg_command) == 6 + 4 * JOINTS, "msg_command");

struct msg_arm {
    uint32_t session; /* the board's session, from its HELLO */
};
_Static_assert(sizeof(struct msg_arm) == 4, "msg_arm");

struct msg_ack {
    uint8_t message; /* MessageId that is answered */
    uint8_t result; /* AckResult */
    uint16_t acked_seq;
    uint16_t faults; /* Fault bits */
};
_Static_assert(sizeof(struct msg_ack) == 6, "msg_ack");

struct msg_time_sync {
    uint64_t host_send_ns; /* echoed by the board */
    uint32_t mcu_receive_us; /* 0 in the host's question */
    uint32_t mcu_send_us; /* 0 in the host's question */
};
_Static_assert(sizeof(struct msg_time_sync) == 16, "msg_time_sync");

struct msg_spec_read {
    uint16_t offset;
};
_Static_assert(sizeof(struct msg_spec_read) == 2, "msg_spec_read");

struct msg_spec_text {
    uint16_t offset;
    uint16_t total;
    uint8_t length;
    uint8_t data[128]; /* the board's firmware facts, `key = value` lines */
};
_Static_assert(sizeof(struct msg_spec_text) == 133, "msg_spec_text");

struct msg_fault {
    uint8_t board; /* BoardMode after the fault */
    uint16_t faults; /* Fault bits, newly set ones included */
    int32_t milli; /* the offending value times 1000, 0 where there is none */
};
_Static_assert(sizeof(struct msg_fault) == 7, "msg_fault");

#pragma pack(pop)

/* Payload of each message id; -1 is no message. Bits of OPEN_MESSAGES: ids whose CRC starts from OPEN_SEED. */
#define MESSAGE_IDS 13
#define OPEN_MESSAGES (1u << MSG_HELLO | 1u << MSG_SPEC_READ | 1u << MSG_SPEC_TEXT)
static const int16_t PAYLOAD_BYTES[MESSAGE_IDS] = {
    -1, /* no such message */
    sizeof(struct msg_hello),
    sizeof(struct msg_telemetry),
    sizeof(struct msg_command),
    0, /* heartbeat */
    sizeof(struct msg_arm),
    0, /* disarm */
    0, /* estop */
    sizeof(struct msg_ack),
    sizeof(struct msg_time_sync),
    sizeof(struct msg_spec_read),
    sizeof(struct msg_spec_text),
    sizeof(struct msg_fault),
};

/* LINK_NEXT[state][event]; role-blind, a pair that is not in the table stays. */
static const uint8_t LINK_NEXT[4][5] = {
    {LINK_GREETING, LINK_UP, LINK_REFUSED, LINK_DOWN, LINK_DOWN},
    {LINK_GREETING, LINK_UP, LINK_REFUSED, LINK_GREETING, LINK_DOWN},
    {LINK_UP, LINK_UP, LINK_REFUSED, LINK_DOWN, LINK_DOWN},
    {LINK_REFUSED, LINK_UP, LINK_REFUSED, LINK_DOWN, LINK_DOWN},
};

#endif
