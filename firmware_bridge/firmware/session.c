/* The board's side of the conversation: greeting, arming, the clock, its own description. The link's table is generated. */
#include "board.h"

#include <string.h>

#define REGREET_US 50000u

static void link_event(struct board *board, uint8_t event) { board->link = LINK_NEXT[board->link][event]; }

void send(struct board *board, struct hal *hal, uint8_t message, const void *payload, uint32_t payload_bytes) {
    uint8_t frame[MAX_CODED_BYTES + 1];
    uint32_t length = enframe(frame, message, board->tx_seq++, hal_time_us(hal), payload, payload_bytes);
    hal_serial_write(hal, frame, length);
}

static void send_hello(struct board *board, struct hal *hal, uint32_t now_us) {
    struct msg_hello hello = {.role = ROLE_BOARD, .minor = PROTOCOL_MINOR, .session = board->session};
    memcpy(hello.firmware_fingerprint, FIRMWARE_FINGERPRINT, sizeof hello.firmware_fingerprint);
    _Static_assert(sizeof ROBOT_MODEL - 1 <= sizeof hello.model, "the robot's name is longer than HELLO can say");
    memcpy(hello.model, ROBOT_MODEL, sizeof ROBOT_MODEL - 1);
    board->hello_us = now_us;
    send(board, hal, MSG_HELLO, &hello, sizeof hello);
}

static void acknowledge(struct board *board, struct hal *hal, const struct packet *packet, uint8_t result) {
    struct msg_ack ack = {packet->header.message, result, packet->header.seq, board->faults};
    send(board, hal, MSG_ACK, &ack, sizeof ack);
}

static void on_hello(struct board *board, struct hal *hal, const struct packet *packet, uint32_t now_us) {
    struct msg_hello hello;
    int readable = packet->header.protocol == PROTOCOL_MAJOR;
    if (readable) memcpy(&hello, packet->payload, sizeof hello);
    if (readable && hello.role == ROLE_BOARD) return; /* an echo of ourselves */
    int matches = readable && same(hello.firmware_fingerprint, FIRMWARE_FINGERPRINT, sizeof FIRMWARE_FINGERPRINT);
    uint8_t before = board->link;
    if (matches && (before != LINK_UP || hello.session != board->host_session)) {
        board->host_session = hello.session; /* its count starts anew */
        board->host_seq = packet->header.seq;
    }
    link_event(board, matches ? EVENT_HELLO_MATCHES : EVENT_HELLO_DIFFERS);
    /* A stranger's greeting stops the obeying, not the motors: the command timeout ends that as it ends every silence. */
    board->refusal = matches ? ACK_OK : readable ? ACK_WRONG_FINGERPRINT : ACK_WRONG_PROTOCOL;
    if (board->link != before || now_us - board->hello_us > REGREET_US) send_hello(board, hal, now_us);
}

/* `receive` is when the bytes were taken out of the UART, up to one tick after they came: the host keeps the quickest rounds. */
static void on_time_sync(struct board *board, struct hal *hal, const struct packet *packet, uint32_t now_us) {
    struct msg_time_sync sync;
    memcpy(&sync, packet->payload, sizeof sync);
    sync.mcu_receive_us = now_us;
    sync.mcu_send_us = hal_time_us(hal);
    send(board, hal, MSG_TIME_SYNC, &sync, sizeof sync);
}

static void on_spec_read(struct board *board, struct hal *hal, const struct packet *packet) {
    struct msg_spec_read question;
    memcpy(&question, packet->payload, sizeof question);
    const uint32_t total = sizeof SPEC_TEXT - 1;
    struct msg_spec_text text = {.offset = question.offset, .total = (uint16_t)total};
    if (question.offset < total) {
        uint32_t left = total - question.offset;
        text.length = (uint8_t)(left < SPEC_CHUNK_BYTES ? left : SPEC_CHUNK_BYTES);
        memcpy(text.data, SPEC_TEXT + question.offset, text.length);
    }
    send(board, hal, MSG_SPEC_TEXT, &text, sizeof text);
}

static void on_arm(struct board *board, struct hal *hal, const struct packet *packet, int newest, uint32_t now_us) {
    struct msg_arm question;
    if (board->link != LINK_UP) {
        acknowledge(board, hal, packet, board->link == LINK_REFUSED ? board->refusal : ACK_NOT_GREETED);
        return;
    }
    if (!newest) {
        board->refused++; /* a copy that was under way for long must not undo the DISARM that came before it */
        return;
    }
    memcpy(&question, packet->payload, sizeof question);
    acknowledge(board, hal, packet, arm(board, question.session, packet->header.seq, now_us));
}

static void on_command(struct board *board, const struct packet *packet, uint32_t now_us) {
    struct msg_command command;
    if (board->link != LINK_UP) return;
    memcpy(&command, packet->payload, sizeof command);
    accept_command(board, packet->header.seq, &command, now_us);
}

static void on_packet(struct board *board, struct hal *hal, const struct packet *packet, uint32_t now_us) {
    uint8_t message = packet->header.message;
    int newest = message != MSG_HELLO && message != MSG_SPEC_READ && is_newer(packet->header.seq, board->host_seq);
    if (newest) board->host_seq = packet->header.seq;
    board->heard_us = now_us;
    switch (message) {
    case MSG_HELLO: on_hello(board, hal, packet, now_us); break;
    case MSG_COMMAND: on_command(board, packet, now_us); break;
    case MSG_ARM: on_arm(board, hal, packet, newest, now_us); break;
    case MSG_DISARM:
        disarm(board);
        acknowledge(board, hal, packet, ACK_OK);
        break;
    case MSG_ESTOP:
        emergency_stop(board);
        acknowledge(board, hal, packet, ACK_OK);
        break;
    case MSG_TIME_SYNC: on_time_sync(board, hal, packet, now_us); break;
    case MSG_SPEC_READ: on_spec_read(board, hal, packet); break;
    default: break; /* HEARTBEAT has done its work by being heard; the rest is the board's own to say */
    }
}

static int32_t milli(float value) {
    float scaled = value * 1000.0f; /* out of range would be undefined */
    return scaled > 2.0e9f ? 2000000000 : scaled < -2.0e9f ? -2000000000 : (int32_t)scaled;
}

void session_start(struct board *board, uint32_t now_us) {
    board->link = LINK_DOWN;
    link_event(board, EVENT_START);
    board->hello_us = now_us - HELLO_RETRY_MS * 1000u;
}

void session_byte(struct board *board, struct hal *hal, uint8_t byte, uint32_t now_us) {
    struct packet packet;
    if (deframe(&board->deframer, byte, &packet)) on_packet(board, hal, &packet, now_us);
}

void session_tick(struct board *board, struct hal *hal, uint32_t now_us) {
    int greeted = board->link == LINK_UP || board->link == LINK_REFUSED;
    if (greeted && now_us - board->heard_us > SILENCE_MS * 1000u) {
        link_event(board, EVENT_SILENCE);
        link_event(board, EVENT_START);
    }
    if (board->link == LINK_GREETING && now_us - board->hello_us >= HELLO_RETRY_MS * 1000u) send_hello(board, hal, now_us);
    if (board->link == LINK_UP && (board->faults & ~board->told_faults & ~(FAULT_LIMITED | FAULT_SLEWED))) {
        struct msg_fault fault = {board->mode, board->faults, milli(board->offender)};
        send(board, hal, MSG_FAULT, &fault, sizeof fault);
        board->told_faults = board->faults;
    }
    board->told_faults &= board->faults;
}
