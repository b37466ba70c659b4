# Manager.pm - the test plays the service manager: hears what sd_notify(3) describes, hands sockets over by name
#
#   my $m = manager(watchdog_ms => 400);     # programs started from now on talk to it
#   $m->wait(qr/^READY=1$/m);                # the next message that matches
#   my @wrap = handed(relay => $listener);   # before a command: it gets these sockets
package Manager;
use strict;
use warnings;
use Exporter 'import';
use Fcntl qw(F_DUPFD);
use HyperTest;
use IO::Socket::UNIX ();
use Socket qw(SOCK_DGRAM);
use Time::HiRes qw(time);

our @EXPORT = qw(manager handed);

my $n = 0;

# Options: abstract => 1, watchdog_ms.
sub manager {
	my (%opt) = @_;
	my $name = ($opt{abstract} ? "\0" : '') . tmp() . '/notify' . $n++;
	my $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $name) or die "notify socket: $!";
	$ENV{NOTIFY_SOCKET} = $name =~ s/^\0/@/r;
	delete $ENV{WATCHDOG_USEC};
	$ENV{WATCHDOG_USEC} = 1000 * $opt{watchdog_ms} if $opt{watchdog_ms};
	return bless { sock => $s, heard => [] }, 'Manager';
}

# One message, undef after so many seconds without one.
sub next_one {
	my ($m, $seconds) = @_;
	return undef if !HyperTest::readable_until($m->{sock}, time + $seconds);
	$m->{sock}->recv(my $text, 4096);
	push @{ $m->{heard} }, $text;
	return $text;
}

# The next one that matches; undef after the deadline. What came before it is in ->{heard}.
sub wait {
	my ($m, $re, $seconds) = @_;
	my $end = time + ($seconds // 10) * slow_factor();
	while ((my $left = $end - time) > 0) {
		my $text = $m->next_one($left) // return undef;
		return $text if $text =~ $re;
	}
	return undef;
}

# All that waits to be heard.
sub drain { my ($m) = @_; my @all; while (defined(my $text = $m->next_one(0.001))) { push @all, $text } return @all }

# A command before ours that hands over listeners: (name => socket, ...). Option pid => whom they are said to be for.
sub handed {
	my (@pairs) = @_;
	my (@fds, @names, $pid);
	while (my ($name, $socket) = splice @pairs, 0, 2) {
		$pid = $socket, next if $name eq 'pid';
		# out of the way of the numbers from 3 on
		push @fds, fcntl($socket, F_DUPFD, 100) // die "dup: $!";
		push @names, $name;
	}
	my $code = 'use POSIX; my ($pid, $names, @fd) = (shift, shift); push @fd, shift while $ARGV[0] =~ /^\d+$/;'
	    . ' dup2($fd[$_], 3 + $_) for 0 .. $#fd; POSIX::close($_) for @fd;'
	    . ' @ENV{qw(LISTEN_PID LISTEN_FDS LISTEN_FDNAMES)} = ($pid || $$, scalar @fd, $names); exec @ARGV or die "exec: $!"';
	return ($^X, '-e', $code, $pid // 0, join(':', @names), @fds);
}

1;
