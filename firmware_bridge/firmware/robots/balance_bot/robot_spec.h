/* Generated from the robot file of balance_bot by firmware_bridge/header.py. Do not edit. */
#ifndef ROBOT_SPEC_H
#define ROBOT_SPEC_H

#include <stdint.h>

#define ROBOT_MODEL "balance_bot"
#define JOINTS 2
#define EXTRAS 0
#define SENSOR_HZ 200
#define BOARD_HZ 1000
#define TICKS_PER_SENSOR 5
#define COMMAND_TIMEOUT_US 60000
#define BAUD 921600
#define BATTERY_CUTOFF_RAW 9000
#define BAD_SENSOR_TICKS 20
#define FALLBACK_BALANCE_PD 1
#define HAS_IMU 1
#define TILT_LIMIT_RAD 0.8f
#define TILT_ARM_RAD 0.35f
#define BATTERY_V_PER_LSB 0.001f
#define GYRO_RAD_S_PER_LSB 0.00026631584f
#define ACCEL_M_S2_PER_LSB 0.00119706002f
#define FILTER_S 0.5f
#define PITCH_KP 7.0f
#define PITCH_KD 0.32f
#define SPEED_KP 0.42f
#define SPEED_KI 0.31f
#define LEAN_LIMIT_RAD 0.24f
#define YAW_KP 0.14f
#define BALANCE_RAD 0.0f
#define WHEEL_RADIUS_M 0.04f
#define WHEELS_TILT_WITH_BODY 1.0f
#define CLOSED_SEED 0xda498ed6u

static const float JOINT_SIGN[2] = {1.0f, -1.0f};
static const float RAD_PER_COUNT[2] = {0.000383495283f, 0.000383495283f};
static const float COMMAND_LIMIT[2] = {1.0f, 1.0f};
static const float COMMAND_SLEW_PER_S[2] = {50.0f, 50.0f};
static const float OVERSPEED_RAD_S[2] = {60.0f, 60.0f};
static const float IMU_SIGN[3] = {1.0f, 1.0f, 1.0f};
static const uint8_t IMU_AXIS[3] = {0, 1, 2}; /* which sensor axis is body x, y, z */
static const uint8_t FIRMWARE_FINGERPRINT[8] = {0x04, 0x19, 0x7c, 0xe6, 0x93, 0x45, 0x05, 0x42};

/* What this firmware was built from, for a host that was built from something else. */
static const char SPEC_TEXT[] =
    "balance_pd.balance_rad = 0.0\n"
    "balance_pd.lean_limit_rad = 0.24\n"
    "balance_pd.pitch_kd = 0.32\n"
    "balance_pd.pitch_kp = 7.0\n"
    "balance_pd.speed_ki = 0.31\n"
    "balance_pd.speed_kp = 0.42\n"
    "balance_pd.yaw_ff = 0.1\n"
    "balance_pd.yaw_kp = 0.14\n"
    "battery.cutoff_v = 9.0\n"
    "battery.lsb_per_v = 1000.0\n"
    "battery.nominal_v = 11.1\n"
    "drive.track_m = 0.17\n"
    "drive.wheel_radius_m = 0.04\n"
    "drive.wheels_tilt_with_body = true\n"
    "extras = []\n"
    "imu.accel_lsb_per_m_s2 = 835.38\n"
    "imu.axes = [\"+x\", \"+y\", \"+z\"]\n"
    "imu.filter_s = 0.5\n"
    "imu.gyro_lsb_per_rad_s = 3754.94\n"
    "joints[0].command_limit = 1.0\n"
    "joints[0].command_slew_per_s = 50.0\n"
    "joints[0].command_unit = \"duty\"\n"
    "joints[0].counts_per_rad = 2607.594\n"
    "joints[0].name = \"left_wheel\"\n"
    "joints[0].overspeed_rad_s = 60.0\n"
    "joints[0].sign = 1\n"
    "joints[0].velocity_limit_rad_s = 40.0\n"
    "joints[1].command_limit = 1.0\n"
    "joints[1].command_slew_per_s = 50.0\n"
    "joints[1].command_unit = \"duty\"\n"
    "joints[1].counts_per_rad = 2607.594\n"
    "joints[1].name = \"right_wheel\"\n"
    "joints[1].overspeed_rad_s = 60.0\n"
    "joints[1].sign = -1\n"
    "joints[1].velocity_limit_rad_s = 40.0\n"
    "link.baud = 921600\n"
    "model = \"balance_bot\"\n"
    "rates.board_hz = 1000\n"
    "rates.command_timeout_ms = 60\n"
    "rates.sensor_hz = 200\n"
    "safety.bad_sensor_ms = 20\n"
    "safety.fallback = \"balance_pd\"\n"
    "safety.tilt_arm_rad = 0.35\n"
    "safety.tilt_limit_rad = 0.8"
    ;

#endif
