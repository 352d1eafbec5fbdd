/* The board's own judgement. It trusts neither the host nor the sensors, and what it latches only a DISARM releases. */
#include "board.h"

#include <string.h>

#define TICK_S (1.0f / (float)BOARD_HZ)
#define FROZEN_TICKS (5u * BAD_SENSOR_TICKS)          /* a live IMU is never this quiet: its last bit rattles */
#define LOW_BATTERY_TICKS ((uint32_t)BOARD_HZ / 5u)   /* 0.2 s: a start-up current may pull the voltage down for less */
#define SLEW_MARGIN 1.25f                             /* over the host's own slew: jitter of arrival must not clip */
#define LATCHED (FAULT_TILT | FAULT_BAD_NUMBER | FAULT_OVERSPEED | FAULT_LOW_BATTERY | FAULT_BAD_SENSOR)

_Static_assert(BATTERY_CUTOFF_RAW <= 0xffff, "battery.cutoff_v is more than the 16 bits of its reading can say at battery.lsb_per_v");

static float absolute(float x) { return x < 0.0f ? -x : x; }

static int is_finite(float x) { return x - x == 0.0f; }

/* |error| < 2e-5 rad: minimax polynomial on [0, 1]. There is no libm here. */
float arctan2(float y, float x) {
    float ax = absolute(x), ay = absolute(y);
    float high = ax > ay ? ax : ay, low = ax > ay ? ay : ax;
    if (high == 0.0f) return 0.0f;
    float z = low / high, s = z * z;
    float angle = z * (0.99997726f + s * (-0.33262347f + s * (0.19354346f + s * (-0.11643287f + s * (0.05265332f + s * -0.01172120f)))));
    if (ay > ax) angle = 1.57079633f - angle;
    if (x < 0.0f) angle = 3.14159265f - angle;
    return y < 0.0f ? -angle : angle;
}

void latch(struct board *board, uint16_t fault, float offender) {
    /* With the motors off a robot may lie on its side; whether it may be armed is arm()'s own question. */
    if (board->mode == BOARD_ESTOP || board->mode == BOARD_DISARMED) return;
    if (!(board->faults & fault)) board->offender = offender;
    board->faults |= fault;
    if (fault & LATCHED) board->mode = BOARD_FAULT;
}

#if HAS_IMU
static float body(const int16_t raw[3], int axis, float scale) { return IMU_SIGN[axis] * (float)raw[IMU_AXIS[axis]] * scale; }

static int imu_missing(const struct raw_sensors *sensors) {
    for (int i = 0; i < 3; i++)
        if (sensors->gyro[i] == NO_READING_I16 || sensors->accel[i] == NO_READING_I16) return 1;
    return 0;
}

/* Complementary filter; the same time constant as the host's. Without a reading the last estimate stands. */
void estimate_lean(struct lean *lean, const struct raw_sensors *sensors, float elapsed_s) {
    if (imu_missing(sensors)) return;
    float ax = body(sensors->accel, 0, ACCEL_M_S2_PER_LSB), ay = body(sensors->accel, 1, ACCEL_M_S2_PER_LSB);
    float az = body(sensors->accel, 2, ACCEL_M_S2_PER_LSB);
    float pitch = arctan2(-ax, az), roll = arctan2(ay, az);
    lean->pitch_rate_rad_s = body(sensors->gyro, 1, GYRO_RAD_S_PER_LSB);
    lean->yaw_rate_rad_s = body(sensors->gyro, 2, GYRO_RAD_S_PER_LSB);
    if (lean->known) {
        float keep = FILTER_S / (FILTER_S + elapsed_s);
        pitch = keep * (lean->pitch_rad + lean->pitch_rate_rad_s * elapsed_s) + (1.0f - keep) * pitch;
        roll = keep * (lean->roll_rad + body(sensors->gyro, 0, GYRO_RAD_S_PER_LSB) * elapsed_s) + (1.0f - keep) * roll;
    }
    lean->pitch_rad = pitch;
    lean->roll_rad = roll;
    lean->known = 1;
}

static void judge_imu(struct board *board) {
    const struct raw_sensors *now = &board->sensors, *before = &board->last_sensors;
    int frozen = same(now->gyro, before->gyro, sizeof now->gyro) && same(now->accel, before->accel, sizeof now->accel);
    board->blind_ticks = imu_missing(now) ? board->blind_ticks + 1 : 0;
    board->frozen_ticks = frozen ? board->frozen_ticks + 1 : 0;
    if (board->blind_ticks >= BAD_SENSOR_TICKS || board->frozen_ticks >= FROZEN_TICKS) latch(board, FAULT_BAD_SENSOR, 0.0f);
}
#else
void estimate_lean(struct lean *lean, const struct raw_sensors *sensors, float elapsed_s) {
    (void)sensors, (void)elapsed_s;
    lean->known = 1;
}

static void judge_imu(struct board *board) { (void)board; }
#endif

static float tilt(const struct lean *lean) {
    float pitch = absolute(lean->pitch_rad), roll = absolute(lean->roll_rad);
    return pitch > roll ? pitch : roll;
}

void judge_sensors(struct board *board) {
    judge_imu(board);
    estimate_lean(&board->lean, &board->sensors, TICK_S);
    if (tilt(&board->lean) > TILT_LIMIT_RAD) latch(board, FAULT_TILT, tilt(&board->lean));
    board->low_battery_ticks = board->sensors.battery < BATTERY_CUTOFF_RAW ? board->low_battery_ticks + 1 : 0;
    if (board->low_battery_ticks >= LOW_BATTERY_TICKS) latch(board, FAULT_LOW_BATTERY, (float)board->sensors.battery * BATTERY_V_PER_LSB);
    board->last_sensors = board->sensors;
}

/* Once per sensor period: wrapping differences, so that an encoder counter may overflow. */
void judge_motion(struct board *board) {
    for (int i = 0; i < JOINTS; i++) {
        int32_t counts = board->sensors.counts[i];
        int32_t step = (int32_t)((uint32_t)counts - (uint32_t)board->last_counts[i]);
        board->last_counts[i] = counts;
        if (!board->counts_known) step = 0;
        float cps = (float)step * (float)SENSOR_HZ;
        board->velocity_cps[i] = cps > 2.0e9f ? 2000000000 : cps < -2.0e9f ? -2000000000 : (int32_t)cps;
        board->velocity_rad_s[i] = JOINT_SIGN[i] * cps * RAD_PER_COUNT[i];
        if (absolute(board->velocity_rad_s[i]) > OVERSPEED_RAD_S[i]) latch(board, FAULT_OVERSPEED, board->velocity_rad_s[i]);
    }
    board->counts_known = 1;
}

void judge_timeout(struct board *board, uint32_t now_us) {
    int silent = now_us - board->commanded_us > COMMAND_TIMEOUT_US;
    int expired = (int32_t)(board->deadline_us - now_us) < 0; /* the host said for how long its last command is meant */
    if (board->mode != BOARD_ARMED || !(silent || expired)) return;
    board->mode = FALLBACK_BALANCE_PD ? BOARD_FALLBACK : BOARD_DAMPED;
    latch(board, FAULT_TIMEOUT, (float)(now_us - board->commanded_us) * 1e-6f);
    fallback_start(board);
}

uint8_t arm(struct board *board, uint32_t session, uint16_t seq, uint32_t now_us) {
    if (session != board->session) return ACK_WRONG_SESSION;
    if (board->mode == BOARD_ESTOP) return ACK_ESTOPPED;
    if (board->mode == BOARD_FAULT) return ACK_FAULT_LATCHED;
    if (!board->lean.known || board->blind_ticks > 0 || board->frozen_ticks >= FROZEN_TICKS) return ACK_BAD_SENSOR;
    if (tilt(&board->lean) > TILT_ARM_RAD) return ACK_TILTED;
    if (board->sensors.battery < BATTERY_CUTOFF_RAW) return ACK_LOW_BATTERY;
    if (board->mode == BOARD_ARMED) return ACK_OK; /* asked twice: the watchdog is not fed by that */
    board->mode = BOARD_ARMED;
    board->faults = FAULT_NONE;
    board->commanded_us = board->driven_us = now_us;
    board->deadline_us = now_us + COMMAND_TIMEOUT_US;
    board->command_seq = seq; /* a command from before the arming is old, however late it comes */
    memcpy(board->wanted, board->driven, sizeof board->wanted);
    return ACK_OK;
}

void disarm(struct board *board) {
    if (board->mode == BOARD_ESTOP) return;
    board->mode = BOARD_DISARMED;
    board->faults = FAULT_NONE;
    board->offender = 0.0f;
}

void emergency_stop(struct board *board) { board->mode = BOARD_ESTOP; }

/* The limit, then the largest step; says in `faults` which of them was at work. */
float limited(float wanted, float last, float limit, float largest_step, uint16_t *faults) {
    float command = wanted > limit ? limit : wanted < -limit ? -limit : wanted;
    if (command != wanted) *faults |= FAULT_LIMITED;
    float slow = command > last + largest_step ? last + largest_step : command < last - largest_step ? last - largest_step : command;
    if (slow != command) *faults |= FAULT_SLEWED;
    return slow;
}

/* A command that is late, old or repeated is not obeyed and does not feed the watchdog. */
void accept_command(struct board *board, uint16_t seq, const struct msg_command *command, uint32_t now_us) {
    int stale = (int32_t)(command->deadline_mcu_us - now_us) < 0;
    if (board->mode != BOARD_ARMED) return;
    if (stale || !is_newer(seq, board->command_seq)) {
        board->refused++;
        return;
    }
    float wanted[JOINTS];
    memcpy(wanted, command->command, sizeof wanted);
    for (int i = 0; i < JOINTS; i++) {
        if (!is_finite(wanted[i])) {
            latch(board, FAULT_BAD_NUMBER, (float)i);
            return;
        }
    }
    float elapsed_s = (float)(now_us - board->driven_us) * 1e-6f; /* two in one tick share one allowance */
    board->faults &= (uint16_t)~(FAULT_LIMITED | FAULT_SLEWED);
    for (int i = 0; i < JOINTS; i++) {
        float step = COMMAND_SLEW_PER_S[i] * elapsed_s * SLEW_MARGIN;
        board->wanted[i] = limited(wanted[i], board->driven[i], COMMAND_LIMIT[i], step, &board->faults);
    }
    board->commanded_us = now_us;
    board->deadline_us = command->deadline_mcu_us;
    board->command_seq = board->answered_seq = seq;
}
