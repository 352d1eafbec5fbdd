/* All state of the motor board in one struct. No heap, no globals, no libc beyond memcpy and memset. */
#ifndef BOARD_H
#define BOARD_H

#include "framing.h"
#include "hal.h"

struct lean {
    float pitch_rad, roll_rad;
    float pitch_rate_rad_s, yaw_rate_rad_s;
    uint8_t known; /* 0 until the first reading */
};

struct board {
    /* session.c */
    struct deframer deframer;
    uint8_t link; /* LINK_* */
    uint8_t refusal; /* ACK_*: why, while the link is refused */
    uint16_t tx_seq;
    uint16_t host_seq; /* newest packet of the greeted host */
    uint32_t session, host_session, heard_us, hello_us;
    /* safety.c */
    uint8_t mode; /* BOARD_* */
    uint16_t faults, told_faults; /* told: what the last FAULT message said */
    float offender; /* the value that tripped the last fault */
    struct lean lean;
    uint32_t blind_ticks, frozen_ticks, low_battery_ticks;
    struct raw_sensors sensors, last_sensors;
    /* the command */
    float wanted[JOINTS], driven[JOINTS]; /* board sign */
    uint32_t commanded_us; /* when the last valid one came, or when the board was armed */
    uint32_t deadline_us; /* of that one; after it, it is not obeyed any more */
    uint32_t driven_us; /* when the one that is being driven came: what the next one's slew is counted from */
    uint16_t command_seq, answered_seq; /* of what was obeyed last: ARM or COMMAND; COMMAND */
    uint32_t refused; /* ARMs and COMMANDs that came too late, twice or out of order */
    /* velocity, over one sensor period */
    int32_t last_counts[JOINTS], velocity_cps[JOINTS];
    float velocity_rad_s[JOINTS]; /* joint sign */
    uint8_t counts_known;
    uint32_t tick;
    /* fallback.c */
    float speed_integral_m;
};

/* board.c */
void board_start(struct board *board, uint32_t session, uint32_t now_us);
void board_tick(struct board *board, struct hal *hal);

/* session.c */
void session_start(struct board *board, uint32_t now_us);
void session_byte(struct board *board, struct hal *hal, uint8_t byte, uint32_t now_us);
void session_tick(struct board *board, struct hal *hal, uint32_t now_us);
void send(struct board *board, struct hal *hal, uint8_t message, const void *payload, uint32_t payload_bytes);

/* safety.c */
void estimate_lean(struct lean *lean, const struct raw_sensors *sensors, float elapsed_s);
void judge_sensors(struct board *board);
void judge_motion(struct board *board);
void judge_timeout(struct board *board, uint32_t now_us);
uint8_t arm(struct board *board, uint32_t session, uint16_t seq, uint32_t now_us); /* ACK_* */
void disarm(struct board *board);
void emergency_stop(struct board *board);
void accept_command(struct board *board, uint16_t seq, const struct msg_command *command, uint32_t now_us);
void latch(struct board *board, uint16_t fault, float offender);
float limited(float wanted, float last, float limit, float largest_step, uint16_t *faults);
float arctan2(float y, float x);

/* fallback.c */
void fallback_start(struct board *board);
void fallback_command(struct board *board, float command[JOINTS]);

#endif
