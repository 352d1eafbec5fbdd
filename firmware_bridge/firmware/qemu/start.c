/* Reset: memory, then main. Any exception, the watchdog's warning included, stops the processor, and the watchdog then resets it. */
#include <stdint.h>
#include <string.h>

extern uint32_t stack_top, data_begin, data_end, data_from, bss_begin, bss_end;
int main(void);
void systick_handler(void);
void host_rx_handler(void);
void plant_rx_handler(void);

/* The two functions the core may use; a freestanding compiler may call them by itself as well. */
void *memcpy(void *restrict to, const void *restrict from, size_t length) {
    uint8_t *out = to;
    const uint8_t *in = from;
    while (length-- > 0) *out++ = *in++;
    return to;
}

void *memset(void *to, int value, size_t length) {
    uint8_t *out = to;
    while (length-- > 0) *out++ = (uint8_t)value;
    return to;
}

static void halt(void) {
    for (;;) {
    }
}

void reset(void) {
    for (uint32_t *to = &data_begin, *from = &data_from; to < &data_end;) *to++ = *from++;
    for (uint32_t *to = &bss_begin; to < &bss_end;) *to++ = 0;
    main();
    halt();
}

__attribute__((section(".vectors"), used)) static const void *const VECTORS[19] = {
    &stack_top, (const void *)reset, (const void *)halt, (const void *)halt, (const void *)halt, (const void *)halt, (const void *)halt,
    [15] = (const void *)systick_handler, [16] = (const void *)host_rx_handler, [18] = (const void *)plant_rx_handler,
};
