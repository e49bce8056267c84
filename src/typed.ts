// A command as the user types it, for messages.

/** `npm run train --` in a clone, `ddpm-wgsl train` where the package is installed. */
export const typedAs = (command: string): string => (import.meta.url.endsWith('.ts') ? `npm run ${command} --` : `ddpm-wgsl ${command}`);

/** The same, where no argument follows. */
export const typedAlone = (command: string): string => typedAs(command).replace(/ --$/, '');
